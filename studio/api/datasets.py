"""Datasets made here: look at their rows, change them, compare them, say how they were made.

Everything that makes a dataset is a run (``submit({"kind": "data", "method": ..., "dataset": ref, ...})``); these
functions only look, and write down what a person changed beside a version, never in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio import settings
from studio.api.who import scope, signed_in
from studio.errors import StudioError

if TYPE_CHECKING:
    from studio.datasets.table import Table
    from studio.datasets.version import Version


def data_list(owner: str | None = None) -> list[dict[str, Any]]:
    """Versions of the library, the newest first: ``{ref, id, name, format, rows: {split: n}, total, hash, size,
    created, stage, run_id, parents: [refs], steps: n}``; ``stage`` is ``step`` for what a pipeline left on its way,
    else ``final``."""
    from studio.library import artifacts

    found = [_listed(row, version) for row, version in _versions(owner)]
    parents = artifacts.parents_of([row["id"] for row in found])
    return [row | {"parents": parents[row["id"]]} for row in found]


def _versions(owner: str | None) -> Iterator[tuple[dict[str, Any], Version]]:
    """Artifacts that are versions and whose files are there, the newest first."""
    from studio.library import artifacts

    for row in artifacts.listed(("dataset",), scope(owner)):
        if row["meta"].get("version"):
            try:
                yield row, _version(row["path"])
            except StudioError:
                continue  # its files are gone


_read: dict[str, tuple[int, Version]] = {}  # a version is written once, so its facts are read once


def _version(path: str) -> Version:
    """The version in a folder.

    Raises:
        StudioError: there is none.
    """
    from studio.datasets import version as versions

    try:
        stamp = (Path(path) / versions.META).stat().st_mtime_ns
    except OSError:
        stamp = -1
    known = _read.get(path)
    if known is None or known[0] != stamp:
        if len(_read) > 2000:
            _read.clear()
        known = _read[path] = (stamp, versions.Version(path))
    return known[1]


def _listed(row: dict[str, Any], version: Any) -> dict[str, Any]:
    rows = version.meta["rows"]
    return {"ref": row["ref"], "id": row["id"], "name": row["name"], "format": version.meta["format"], "rows": rows,
            "total": sum(rows.values()), "hash": version.hash, "size": row["size"], "created": row["created"],
            "stage": row["meta"].get("stage", "final"), "run_id": row["run_id"], "steps": len(version.meta["history"])}


def data_open(ref: str, owner: str | None = None) -> dict[str, Any]:
    """Everything about a version but its rows.

    Returns:
        What :func:`data_list` gives, and ``{title, splits, dropped, sources, languages, tags: {key: [values]}, labels,
        scored, pipeline: [{step, title, ref, rows_in, rows_out, changed, dropped, reasons, facts, seconds, made}],
        reports: {method: report | None}, edits: {count, review, undo, redo, ...}}``. ``ref`` of a stage of the
        pipeline is the version it left in the library, ``None`` if that is gone.

    Raises:
        StudioError: it is no version; a file or a Hub set is brought in first.
    """
    from studio.datasets.report import names, read
    from studio.datasets.roles import FORMATS

    row, table = _table(ref, owner)
    version = table.version
    stages = _stages(owner) | {version.meta["history"][-1]["made"]: row["ref"]}
    figures = ("rows_in", "rows_out", "changed", "dropped", "reasons", "facts", "mended", "seconds", "made")
    pipeline = [{"step": entry["step"], "title": _title(entry["step"].get("method", "")),
                 "ref": stages.get(entry["made"]), **{key: entry.get(key) for key in figures}}
                for entry in version.meta["history"]]
    return _listed(row, version) | {
        "parents": [edge["ref"] for edge in row["parents"]],
        "title": FORMATS.get(version.meta["format"], "Rows of several formats"), "splits": version.splits,
        **table.facts(), "pipeline": pipeline, "reports": {name: read(version.hash, name) for name in names()},
        "edits": table.edits.summary()}


def data_rows(ref: str, query: dict[str, Any] | None = None, sort: str | None = None, desc: bool = False,
              offset: int = 0, limit: int = 100, owner: str | None = None) -> dict[str, Any]:
    """A page of rows.

    Args:
        query: ``{split, search, regex, lang: [...], source: [...], label: [...], reason: [...], tags: {key: [values]},
            chars: [min, max], turns: [min, max], score: [min, max], state: [edited | deleted | keep | drop | better |
            worse | rewrite | noted | unreviewed]}``, all optional; the value ``none`` stands for rows without one.
            ``split`` is ``train`` unless said, ``dropped`` for what the step left out.
        sort: ``pos``, ``chars``, ``turns``, ``lang``, ``score``, ``source``, ``label``, ``id``, ``reason`` or
            ``tag:KEY``.
        limit: At most 200.

    Returns:
        ``{total, matching, ms, rows: [{pos, id, row, source, chars, turns, lang, score, label, tags, reason?, detail?,
        cut?, state: {edited, deleted, review, note}}]}``; ``row`` is the canonical row with the person's changes;
        ``cut`` is there when its texts are shown shortened (see :func:`data_row`) and holds its whole length.

    Raises:
        StudioError: a filter that cannot be read, named by ``field``.
    """
    from studio.datasets.query import query_of

    _, table = _table(ref, owner)
    return table.page(query_of(query, sort, desc), offset, limit)


def data_row(ref: str, split: str, pos: int, owner: str | None = None) -> dict[str, Any]:
    """One row in full, as in :func:`data_rows`, with ``original``: the row before it was changed, or ``None``.

    Raises:
        StudioError: it is not there.
    """
    _, table = _table(ref, owner)
    _inside(table, split, [pos])
    (shown,) = table.rows(split, [pos], whole=True)
    original = table.items(split, [pos])[0][1].row if shown["state"]["edited"] else None
    return shown | {"original": original}


def data_edit(ref: str, split: str, ops: list[dict[str, Any]], owner: str | None = None) -> dict[str, Any]:
    """Write down changes to rows of a version; all of one call are undone together.

    Args:
        ops: ``{op, pos, ...}`` each: ``set`` (``row``: the whole canonical row), ``rewrite`` (``text``: the last
            answer, or ``row``), ``delete``, ``restore``, ``keep``, ``drop``, ``better``, ``worse``, ``note``
            (``text``), ``tag`` (``key``, ``value``; ``None`` takes it away), ``clear`` (all, or ``key``: ``row``,
            ``review``, ``note``, ``tags``).

    Returns:
        The summary of the edits: ``{count, rows, edited, deleted, noted, tagged, review, undo, redo, stamp}``.

    Raises:
        StudioError: a row that is not there or could not be trained on; nothing is written then.
    """
    from studio.datasets import amend

    row, table = _table(ref, signed_in(owner))
    made = amend.checked(table, split, ops)
    return table.edits.append(split, made, owner).summary()


def data_undo(ref: str, owner: str | None = None) -> dict[str, Any]:
    """Take the last :func:`data_edit` of a version back: its summary and ``touched: [{split, pos}]``.

    Raises:
        StudioError: there is nothing to undo.
    """
    _, table = _table(ref, signed_in(owner))
    touched = table.edits.undo()
    return table.edits.summary() | {"touched": [{"split": split, "pos": pos} for split, pos in touched]}


def data_redo(ref: str, owner: str | None = None) -> dict[str, Any]:
    """Do again what :func:`data_undo` took back last.

    Raises:
        StudioError: there is nothing to do again.
    """
    _, table = _table(ref, signed_in(owner))
    touched = table.edits.redo()
    return table.edits.summary() | {"touched": [{"split": split, "pos": pos} for split, pos in touched]}


def data_facets(ref: str, query: dict[str, Any] | None = None, owner: str | None = None) -> dict[str, Any]:
    """What each filter menu could be set to and how many rows it would leave, the menu's own choice aside.

    Returns:
        ``{split: {name: n}, lang: {code: n}, source: {...}, label: {...}, reason?: {...}, tags: {key: {value: n}},
        chars: {min, max, count}, turns: {...}, score: {...}, state: {word: n}}``.

    Raises:
        StudioError: a filter that cannot be read.
    """
    from studio.datasets.query import query_of

    _, table = _table(ref, owner)
    return table.facets(query_of(query))


def data_report(ref: str, method: str, owner: str | None = None) -> dict[str, Any] | None:
    """The newest report (``doctor``, ``statistics``) on a version, or ``None``.

    Raises:
        StudioError: it is no version, or there is no such report.
    """
    from studio.datasets.report import read

    _, table = _table(ref, owner)
    return read(table.version.hash, method)


def data_diff(a: str, b: str, offset: int = 0, limit: int = 50, kind: str = "",
              owner: str | None = None) -> dict[str, Any]:
    """What differs between two versions, row by row; see :func:`studio.datasets.diff.diff`.

    Args:
        kind: Only the rows that were ``added``, ``removed``, ``changed`` or ``moved``; all but ``moved`` if empty.

    Returns:
        ``{same, changed, added, removed, moved, matching, rows: [{kind, before, after}], steps: [{where: a | b | both,
        step, title, rows_in, rows_out}]}``; ``before`` and ``after`` are rows as in :func:`data_rows` with ``split``,
        or ``None``.

    Raises:
        StudioError: one of them is no version.
    """
    from studio.datasets import diff

    left, right = _table(a, owner)[1].version, _table(b, owner)[1].version
    made = diff.diff(left, right, offset, limit, kind)
    steps = [step | {"title": _title(step["step"].get("method", ""))} for step in diff.steps(left, right)]
    return made | {"steps": steps}


def data_pipeline(ref: str, owner: str | None = None) -> dict[str, Any]:
    """The recipe that would make a version again: ``{"values": {...}, "yaml": text}``.

    Raises:
        StudioError: it is no version.
    """
    from studio.recipe import write_yaml

    _, table = _table(ref, owner)
    steps = [entry["step"] for entry in table.version.meta["history"]]
    values = {"kind": "data", "method": "pipeline", "steps": steps}
    return {"values": values, "yaml": write_yaml(values)}


def data_save_pipeline(ref: str, name: str, owner: str | None = None) -> dict[str, Any]:
    """Keep the pipeline of a version under a name, to run it on other rows: ``{name, title, path}``.

    Raises:
        StudioError: it is no version, or the name cannot be used.
    """
    title = " ".join(str(name).split())
    stem = re.sub(r"[^\w-]+", "-", title.lower()).strip("-")[:60]
    if not stem:
        raise StudioError("A pipeline needs a name with letters in it.", "Type one.", "name")
    text = data_pipeline(ref, signed_in(owner))["yaml"]
    folder = _recipes(owner)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"data-{stem}.yaml"
    part = path.with_name(f".{path.name}.part")
    part.write_text(f"# {title[:100]}\n{text}", "utf-8")
    part.replace(path)
    return {"name": path.stem, "title": title[:100], "path": str(path)}


def data_pipelines(owner: str | None = None) -> list[dict[str, Any]]:
    """Pipelines that were kept, the newest first: ``{name, title, values, steps: [titles], path}``."""
    from studio.recipe import read_values

    found = []
    for path in sorted(_recipes(scope(owner)).glob("data-*.yaml"), key=lambda p: p.stat().st_mtime, reverse=True):
        try:
            values = read_values(path)
            head = path.read_text("utf-8").partition("\n")[0]
        except (StudioError, OSError):
            continue  # not ours, or spoiled by hand
        steps = values.get("steps")
        titles = [_title(str(step.get("method", ""))) for step in steps if isinstance(step, dict)] \
            if isinstance(steps, list) else []
        title = head.lstrip("# ").strip() if head.startswith("#") else path.stem.removeprefix("data-")
        found.append({"name": path.stem, "title": title, "values": values, "steps": titles, "path": str(path)})
    return found


def data_steps() -> list[dict[str, Any]]:
    """Every step of the dataset builder: ``{name, title, summary, group, starts, paper, fields}``; fields as in
    :func:`studio.api.methods`. Reports, the pipeline and the export are no steps."""
    from studio import registry
    from studio.datasets.step import Step
    from studio.recipe import fields

    return [{"name": name, "title": method.title, "summary": method.summary, "group": method.group,
             "starts": method.starts, "paper": method.paper,
             "fields": [asdict(spec) for spec in fields(method.Recipe)]}
            for name, method in registry.family("data").items() if issubclass(method, Step)]


def _stages(owner: str | None) -> dict[float, str]:
    """When a version's last step ended -> its reference: what tells stages apart even where a step changed nothing."""
    return {version.meta["history"][-1]["made"]: row["ref"] for row, version in reversed(list(_versions(owner)))}


def _table(ref: str, owner: str | None) -> tuple[dict[str, Any], Table]:
    """The artifact and the table of a version.

    Raises:
        StudioError: unknown, another person's, or no version.
    """
    from studio.datasets import edits
    from studio.datasets.table import Table
    from studio.library import artifacts
    from studio.library.refs import check_owner

    check_owner(ref, scope(owner), "dataset")
    kind, _, rest = str(ref).partition(":")
    if kind != "library" or not rest:
        raise StudioError("Only a dataset of the library can be opened as a table.", "Bring it in first.", "dataset")
    row = artifacts.get(rest.partition("#")[0], field="dataset")
    if row["kind"] != "dataset" or not Path(row["path"]).is_dir():
        raise StudioError(f"'{row['name']}' is no dataset that was made here, or its files are gone.",
                          "Bring it in again.", "dataset")
    return row, Table(_version(row["path"]), edits.of(row["id"]))


def _inside(table: Table, split: str, positions: list[Any]) -> None:
    total = table.count(split) if isinstance(split, str) else 0
    for pos in positions:
        if not isinstance(pos, int) or isinstance(pos, bool) or not 0 <= pos < total:
            raise StudioError(f"There is no row {pos!r:.40} in '{split!s:.40}'; it has {total:,}.",
                              "Open the dataset again.", "pos")


def _title(method: str) -> str:
    from studio import registry

    family = registry.family("data")
    return family.get(method).title if method in family else method


def _recipes(owner: str | None) -> Path:
    folder = settings.home() / "recipes"
    return folder / owner if owner else folder
