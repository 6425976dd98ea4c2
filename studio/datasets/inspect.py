"""A first look at a dataset: format, columns, row count, findings, samples and figures, in under a second."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from studio.datasets.checks import Checks
from studio.datasets.convert import Reject, for_sft, normalise, turns_of
from studio.datasets.formats import SAMPLE, Rows, detected_of, open_source
from studio.datasets.readers import ManyReader
from studio.datasets.rows import EXAMPLES
from studio.datasets.roles import ROLES, Detected, unfolded
from studio.errors import StudioError

LIMIT = 5000  # rows that are checked
SECONDS = 0.4  # for checking, and again for counting
SHOWN = 20
FETCHED = 64 << 20  # bytes of a file on the Hub that is fetched for a first look
MAX_SHOWN = 4000  # characters of one text in a sample
Row = dict[str, Any]


def inspect(ref: str | Path, limit: int = LIMIT, columns: dict[str, str] | None = None,
            format: str = "auto") -> dict[str, Any]:
    """What a dataset holds, as plain values.

    Args:
        ref: A dataset reference, or the path of a file.
        limit: Rows that are looked at; the row count is of the whole file.
        columns: role -> column, overriding what is detected.
        format: A key of ``formats.FORMATS``, or ``auto``.

    Returns:
        ``format`` (``None`` if none fits), ``title``, ``roles``, ``columns``, ``confidence``, ``evidence``, ``notes``;
        ``offer`` (the roles a person may give a column to);
        ``rows`` and ``rows_exact`` (an estimate if false), ``checked`` and ``usable`` (rows looked at, and those of
        them that can be trained on); ``findings`` [{code, severity, count, message, hint, examples}] about the rows
        looked at; ``samples`` (the first 20 in canonical shape), ``raw`` (the first 5 as they are), ``stats`` and
        ``file`` {name, kind, size, encoding}.

    Raises:
        StudioError: with ``field="dataset"``: the file cannot be read; ``field="columns"``: the chosen columns do not
            fit.
    """
    source, label = _source(ref)
    started = time.monotonic()
    stream: Iterator[Row] = iter(source)
    head: list[Row] = []
    for row in stream:
        head.append(row)
        if len(head) >= min(SAMPLE, limit) or (len(head) >= EXAMPLES and time.monotonic() - started > SECONDS):
            break
    problem: StudioError | None = None
    detected: Detected | None = None
    try:
        detected = detected_of(source, head, columns, format)
    except StudioError as err:
        if err.field == "columns":
            raise
        problem = err
    if detected and isinstance(source, ManyReader):
        detected.evidence.insert(0, f"{len(source.files)} files, seen here as one; each is detected on its own when "
                                 "they are brought in.")
    checks, figures, samples = Checks(), _Figures(), []
    checked, usable, ended = 0, 0, False
    for row in chain(head, stream):  # not a generator of our own: leaving that early would close the stream
        for one in unfolded(row, detected.unfold if detected else ""):
            checked += 1
            if detected:
                usable += _look(one, checked, detected, checks, figures, samples)
        if checked >= limit or (checked >= len(head) and time.monotonic() - started > SECONDS):
            break
    else:
        ended = True
    # Findings first: counting reads on, and would add broken lines far behind the rows that were looked at.
    findings = checks.findings(source)
    bad = sum(source.bad.values())
    if problem:
        findings.insert(0, {"code": "unknown_format", "severity": "error", "count": checked,
                            "message": problem.message,
                            "hint": problem.hint, "examples": []})
    elif not usable:
        findings.insert(0, {"code": "no_usable_rows", "severity": "error", "count": checked, "examples": [],
                            "message": f"None of the {checked:,} rows looked at can be used.",
                            "hint": "Check which column is what."})
    if ended and source.kind == "hub":  # only the first rows were asked for
        rows, exact = (source.count(), True) if source.count() else (checked, False)
    else:
        rows, exact = (checked + bad, True) if ended else _count(source, stream, checked, bad)
    columns_seen = detected.columns if detected else list(dict.fromkeys(str(k) for row in head for k in row))
    return {
        "ref": str(ref), "format": detected.format if detected else None, "title": detected.title if detected else "",
        "roles": detected.roles if detected else {}, "columns": columns_seen,
        "offer": list(ROLES.get(detected.format, ())) if detected else ["prompt", "completion", "messages", "text"],
        "confidence": detected.confidence if detected else 0.0, "evidence": detected.evidence if detected else [],
        "notes": Rows(source, detected).notes if detected else [], "rows": rows, "rows_exact": exact,
        "checked": checked,
        "usable": usable, "findings": findings, "samples": samples, "raw": [_plain(row) for row in head[:EXAMPLES]],
        "stats": figures.to_dict(), "file": {"name": label, "kind": source.kind, "size": getattr(source, "size", 0),
                                             "encoding": source.encoding},
    }


def _source(ref: str | Path) -> tuple[Any, str]:
    """The reader; for the Hub one that asks for the first rows only instead of downloading the dataset."""
    if isinstance(ref, str) and ref.startswith(("hub:", "hf://", "http://", "https://")):
        from studio import hub
        from studio.datasets.hubrows import HubHead
        from studio.datasets.readers import open_rows
        from studio.library import refs

        found = refs.resolve_dataset(ref)
        if "file" in found.meta:
            return open_rows(hub.file(str(found.hub_id), found.meta["file"], found.revision, FETCHED)), found.label
        return HubHead(str(found.hub_id), ref.partition("#")[2] or found.meta.get("part", "")), found.label
    return open_source(ref)


def _look(row: Row, number: int, detected: Detected, checks: Checks, figures: _Figures, samples: list[Row]) -> bool:
    codes: list[str] = []
    made = normalise(row, detected, codes)
    if isinstance(made, Reject):
        checks.reject(number, made)
        return False
    checks.row(number, made, codes)
    figures.add(made)
    if len(samples) < SHOWN:
        samples.append(_plain(made))
    return not isinstance(for_sft(made), Reject)


def _count(source: Any, stream: Iterator[Row], checked: int, bad: int) -> tuple[int, bool]:
    """(rows of the whole file, exact?): known, or counted on for a moment, or from the bytes read so far.

    Raises:
        StudioError: the file breaks there, behind the rows that were looked at.
    """
    if (known := source.count()) is not None:
        return known, True
    until = time.monotonic() + SECONDS
    for number, _ in enumerate(stream, checked + 1):
        checked = number
        if number % 64 == 0 and time.monotonic() > until:
            break
    else:
        return checked + sum(source.bad.values()), True
    share = source.consumed / source.size if source.size else 0
    return (round((checked + bad) / share) if 0 < share <= 1 else checked + bad), False


class _Figures:
    """Lengths and roles of the rows looked at."""

    def __init__(self) -> None:
        self.turns: list[int] = []
        self.chars: list[int] = []
        self.words: list[int] = []
        self.answers: list[int] = []
        self.roles: Counter[str] = Counter()
        self.marks: Counter[str] = Counter()

    def add(self, row: Row) -> None:
        turns = turns_of(row)
        texts = [m.get("content") or "" for m in turns]
        self.turns.append(len(turns))
        self.chars.append(sum(map(len, texts)))
        self.words.append(sum(len(t.split()) for t in texts))
        if "text" not in row:
            self.answers.append(sum(len(m["content"].split()) for m in turns if m["role"] == "assistant"))
            self.roles.update(m["role"] for m in turns)
        if "label" in row:
            self.marks["good" if row["label"] else "bad"] += 1

    def to_dict(self) -> dict[str, Any]:
        """``turns``, ``chars``, ``words``, ``answer_words`` {mean, p50, p90, p99, max} a row; ``roles``; ``marks``."""
        return {"turns": _percentiles(self.turns), "chars": _percentiles(self.chars),
                "words": _percentiles(self.words),
                "answer_words": _percentiles(self.answers), "roles": dict(self.roles), "marks": dict(self.marks)}


def _percentiles(values: list[int]) -> dict[str, float]:
    if not values:
        return {}
    values = sorted(values)

    def at(share: float) -> int:  # nearest rank
        return values[max(0, math.ceil(share * len(values)) - 1)]

    return {"mean": round(sum(values) / len(values), 1), "p50": at(0.5), "p90": at(0.9), "p99": at(0.99),
            "max": values[-1]}


def _plain(value: Any) -> Any:
    """Any value as plain JSON, long texts cut for display, anything exotic written out."""
    if isinstance(value, str):
        value = value.encode("utf-8", "replace").decode("utf-8")
        return value if len(value) <= MAX_SHOWN else value[:MAX_SHOWN] + "…"
    if isinstance(value, dict):
        return {str(k)[:200]: _plain(v) for k, v in list(value.items())[:200]}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value[:200]]
    if value is None or isinstance(value, (bool, int)):
        return value
    return value if isinstance(value, float) and math.isfinite(value) else str(value)[:200]
