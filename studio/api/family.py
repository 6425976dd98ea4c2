"""The family tree of the whole library: who was made from whom, and where each stands in the drawing."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

from studio.api.who import scope

MOST_OUTSIDE = 60  # models of the Hub that are asked about in one drawing
_PATIENCE = 8.0  # seconds for all of them
_SWEEPS = 4


def family(owner: str | None = None, datasets: bool = False, outside: bool = False) -> dict[str, Any]:
    """Every model, adapter, merge and quantization of the library with what each was made from.

    Args:
        datasets: Show the data that each learned from as well.
        outside: Ask the Hub what its models were made from, as their cards say; without an answer nothing is added.

    Returns:
        ``{"nodes": [{ref, label, kind, method, id, created, x, y}], "edges": [{parent, child, role}]}``. ``kind`` is
        ``starter``, ``model``, ``adapter``, ``merge``, ``quantized``, ``checkpoint``, ``dataset``, ``hub``, ``path`` or
        ``deleted``; models of the Hub have a ``url``; ``x`` the generation from 0 on, ``y`` the place in it, so that lines cross little. An edge that
        would close a circle is marked ``"circle": True`` and does not count as a generation.
    """
    nodes, edges = _library(owner, datasets)
    if outside:
        _ask(nodes, edges)
    return arranged(nodes, list(edges.values()))


def _library(owner: str | None, datasets: bool) -> tuple[dict[str, dict], dict[tuple, dict]]:
    """Nodes by reference, and edges; one query for all."""
    from sqlalchemy import select

    from studio.library import artifacts
    from studio.library.database import reading
    from studio.library.tables import artifacts as table
    from studio.library.tables import parents

    kinds = ("model", "adapter", "dataset") if datasets else ("model", "adapter")
    query = select(table.c.id, table.c.kind, table.c.name, table.c.created, table.c.meta, parents.c.ref, parents.c.role) \
        .outerjoin(parents, parents.c.child_id == table.c.id).where(table.c.kind.in_(kinds)) \
        .order_by(table.c.created, table.c.id)
    if (person := scope(owner)) is not None:
        query = query.where(table.c.owner == person)
    nodes: dict[str, dict] = {}
    edges: dict[tuple, dict] = {}
    with reading() as db:
        rows = db.execute(query).all()
    for row in rows:
        ref, meta = f"library:{row.id}", row.meta or {}
        nodes.setdefault(ref, {"ref": ref, "label": row.name, "kind": _kind(row.kind, meta), "created": row.created,
                               "method": str(meta.get("quantization") or meta.get("method") or ""), "id": row.id})
        if row.ref and row.kind != "dataset":  # where data came from is drawn in the Dataset tab
            _edge(edges, row.ref, ref, row.role)
    for parent, child, role in list(edges):
        if parent.startswith("run:"):
            for one in artifacts.checkpoint_parents(parent):
                _edge(edges, one["ref"], parent, one["role"])
    for parent, child, role in list(edges):
        if parent not in nodes:
            if not datasets and _is_data(parent, role):
                del edges[parent, child, role]
                continue
            nodes[parent] = _outsider(parent, role)
    return nodes, edges


def _kind(kind: str, meta: dict[str, Any]) -> str:
    if kind == "model" and (meta.get("format") or str(meta.get("method", "")).startswith("quantize/")):
        return "quantized"
    return "merge" if kind == "model" and str(meta.get("method", "")).startswith("merge/") else kind


def _edge(edges: dict[tuple, dict], parent: str, child: str, role: str) -> None:
    edges[parent, child, role] = {"parent": parent, "child": child, "role": role}


def _is_data(ref: str, role: str) -> bool:
    return role in ("data", "dataset", "calibration") or ref.startswith("shipped:")


def _outsider(ref: str, role: str) -> dict[str, Any]:
    """What is no artifact of this person: the starter, data, a checkpoint, the Hub, a folder, or something deleted."""
    from studio import hub

    head, _, tail = ref.partition(":")
    if ref == "starter" or head == "starter":
        kind, label = "starter", "Starter" + (f" {tail}" if tail else "")
    elif head == "library":
        kind, label = "deleted", ""
    elif head == "run":
        kind, label = "checkpoint", tail.rpartition("/")[2]
    elif head == "hub":
        kind, label = "dataset" if _is_data(ref, role) else "hub", tail.partition("@")[0]
    elif _is_data(ref, role):
        kind, label = "dataset", tail or ref.rpartition("/")[2]
    else:
        kind, label = "path", ref.rstrip("/").rpartition("/")[2]
    made = {"ref": ref, "label": label, "kind": kind, "method": "", "id": None, "created": None}
    return made | ({"url": f"{hub.endpoint()}/{label}"} if kind == "hub" else {})


def _ask(nodes: dict[str, dict], edges: dict[tuple, dict]) -> None:
    """Add what the cards of the Hub's models name as their bases, generation by generation, within the patience."""
    from studio import hub

    until, asked = time.monotonic() + _PATIENCE, set()
    pool = ThreadPoolExecutor(6)
    try:
        while len(asked) < MOST_OUTSIDE:
            fresh = [ref for ref, node in nodes.items() if node["kind"] == "hub" and ref not in asked]
            fresh = fresh[:MOST_OUTSIDE - len(asked)]
            if not fresh:
                return
            asked.update(fresh)
            work = {pool.submit(hub.bases, ref[4:].partition("@")[0]): ref for ref in fresh}
            done, _ = wait(work, timeout=max(0.0, until - time.monotonic()))
            for one in done:
                for base, role in one.result():
                    ref = next((r for r, node in nodes.items() if node["kind"] == "hub" and node["label"] == base),
                               f"hub:{base}")  # maybe at a revision
                    _edge(edges, ref, work[one], role)
                    nodes.setdefault(ref, _outsider(ref, role))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def arranged(nodes: dict[str, dict], edges: list[dict]) -> dict[str, Any]:
    """Give every node its generation and its place in it.

    A node stands behind everything it was made from; what nothing was made into it stands right before its first child.
    Places come from a few barycentre sweeps (Sugiyama et al. 1981), one apart at least.
    """
    above: dict[str, list[str]] = {ref: [] for ref in nodes}
    below: dict[str, list[str]] = {ref: [] for ref in nodes}
    for edge in edges:
        below[edge["parent"]].append(edge["child"])
    _mark_circles(below, edges)
    below = {ref: [] for ref in nodes}
    for edge in edges:
        if not edge.get("circle"):
            above[edge["child"]].append(edge["parent"])
            below[edge["parent"]].append(edge["child"])
    generation = _generations(above, below)
    columns: list[list[str]] = [[] for _ in range(max(generation.values(), default=-1) + 1)]
    for ref in sorted(nodes, key=lambda r: (not above[r] and not below[r], nodes[r]["created"] or 0, r)):
        columns[generation[ref]].append(ref)
    place = _places(columns, above, below)
    return {"nodes": [node | {"x": generation[ref], "y": round(place[ref], 3)} for ref, node in nodes.items()],
            "edges": edges}


def _mark_circles(below: dict[str, list[str]], edges: list[dict]) -> None:
    """Mark edges that lead back to an ancestor; the walk keeps its own stack, lineages may be long."""
    state: dict[str, int] = {}
    back: set[tuple[str, str]] = set()
    for start in below:
        if start in state:
            continue
        state[start] = 1
        stack = [(start, iter(below[start]))]
        while stack:
            ref, rest = stack[-1]
            for child in rest:
                if state.get(child) == 1:
                    back.add((ref, child))
                elif child not in state:
                    state[child] = 1
                    stack.append((child, iter(below[child])))
                    break
            else:
                state[ref] = 2
                stack.pop()
    for edge in edges:
        if (edge["parent"], edge["child"]) in back:
            edge["circle"] = True


def _generations(above: dict[str, list[str]], below: dict[str, list[str]]) -> dict[str, int]:
    """The longest way from a beginning, by Kahn's order."""
    left = {ref: len(parents) for ref, parents in above.items()}
    ready, found = [ref for ref, n in left.items() if not n], dict.fromkeys(above, 0)
    for ref in ready:
        for child in below[ref]:
            found[child] = max(found[child], found[ref] + 1)
            left[child] -= 1
            if not left[child]:
                ready.append(child)
    for ref, parents in above.items():
        if not parents and below[ref]:
            found[ref] = min(found[child] for child in below[ref]) - 1
    return found


def _places(columns: list[list[str]], above: dict[str, list[str]], below: dict[str, list[str]]) -> dict[str, float]:
    place = {ref: float(i) for column in columns for i, ref in enumerate(column)}
    for sweep in range(_SWEEPS):
        near, order = (above, columns) if sweep % 2 == 0 else (below, columns[::-1])
        for column in order:
            wanted = {ref: sum(place[other] for other in near[ref]) / len(near[ref]) if near[ref] else place[ref]
                      for ref in column}
            column.sort(key=lambda ref: wanted[ref])
            at = float("-inf")
            for ref in column:
                at = place[ref] = max(wanted[ref], at + 1)
            shift = sum(place[ref] - wanted[ref] for ref in column) / max(1, len(column))
            for ref in column:
                place[ref] -= shift
    lowest = min(place.values(), default=0.0)
    return {ref: value - lowest for ref, value in place.items()}
