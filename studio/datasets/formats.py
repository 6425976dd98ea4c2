"""From a reference to training rows: read, detect, normalise, count what is left out, split.

    rows = load_rows("shipped:polite")
    train, held = split(list(rows), eval_share=0.1, seed=0)
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from studio.datasets.cells import compact
from studio.datasets.convert import REJECTS, Reject, for_sft, normalise
from studio.datasets.export import export_rows
from studio.datasets.readers import open_folder, open_rows
from studio.datasets.roles import FORMATS, ROLES, Detected, detect, unfolded
from studio.datasets.rows import BAD, EXAMPLES
from studio.errors import StudioError

__all__ = ["FORMATS", "ROLES", "Detected", "Reject", "Rows", "check", "detect", "export_rows", "load_rows",
           "normalise", "split"]

SAMPLE = 200  # rows looked at to find the format
MAX_HASHES = 1_000_000  # distinct rows remembered to count duplicates, about 80 MB
Row = dict[str, Any]
T = TypeVar("T")


class Rows:
    """The usable rows of a dataset, read anew at every iteration.

    Attributes:
        detected: Format and roles, with the evidence.
        total: Rows read, kept: rows given, in the newest iteration.
        raw: The row as it was read, of the one given last.
        rejects: reason -> {"count", "message", "examples"} of rows left out; at most five examples each.
        mended: code -> rows put right on the way.
        duplicates: Rows given whose content had been given before; they are kept.
        notes: Sentences about what was done to the data as a whole.
    """

    def __init__(self, source: Any, detected: Detected, purpose: str = "sft"):
        self.source, self.detected, self.purpose = source, detected, purpose
        self.notes: list[str] = []
        self.on_reject: Callable[[Row, str, str], None] | None = None  # is told of each row that is left out
        self.remembers = True  # counts duplicates
        if purpose == "sft" and detected.format == "preference":
            self.notes.append("Preference pairs: the chosen answers are learned, the rejected ones are not used.")
        if purpose == "sft" and detected.format == "rated":
            self.notes.append("Rated answers: only those marked good are learned.")
            if "contexts" in detected.roles:
                self.notes.append("The contexts of each answer are put before its question.")
        self._reset()

    def _reset(self) -> None:
        self.total = self.kept = self.duplicates = 0
        self.raw: Row = {}
        self.rejects: dict[str, dict[str, Any]] = {}
        self.mended: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Row]:
        self._reset()
        seen: set[bytes] = set()
        for number, row in enumerate(self._each(), 1):
            self.total, self.raw = number, row
            codes: list[str] = []
            made = normalise(row, self.detected, codes)
            if self.purpose == "sft" and not isinstance(made, Reject):
                made = for_sft(made)
            if isinstance(made, Reject):
                where = f"row {number}" + (f": {made.detail}" if made.detail else "")
                self._reject(made.reason, REJECTS[made.reason], where)
                if self.on_reject:
                    self.on_reject(row, made.reason, where)
                continue
            self.mended.update(set(codes))
            if self.remembers and len(seen) < MAX_HASHES:
                key = content_hash(made)
                self.duplicates += key in seen
                seen.add(key)
            self.kept += 1
            yield made
        for code, count in self.source.bad.items():
            self._reject(code, BAD[code], *self.source.examples[code], count=count)
            self.total += count
        if not self.kept:
            raise self._nothing_left()

    def _each(self) -> Iterator[Row]:
        if not self.detected.unfold:
            return iter(self.source)
        return (one for row in self.source for one in unfolded(row, self.detected.unfold))

    def _reject(self, code: str, message: str, *examples: str, count: int = 1) -> None:
        entry = self.rejects.setdefault(code, {"count": 0, "message": message, "examples": []})
        entry["count"] += count
        entry["examples"] = (entry["examples"] + list(examples))[:EXAMPLES]

    def _nothing_left(self) -> StudioError:
        parts = sorted(self.rejects.values(), key=lambda entry: -entry["count"])
        why = "; ".join(f"{entry['count']:,} because {entry['message']}" for entry in parts[:3])
        columns = ", ".join(f"{role}: {column}" for role, column in self.detected.roles.items())
        return StudioError(f"No usable rows are left: of {self.total:,}, {why}.",
                           f"Check which column is what under 'Columns' (now {columns}).", "dataset")

    def to_dict(self) -> dict[str, Any]:
        """What was read, as plain values; complete after an iteration."""
        return {"detected": self.detected.to_dict(), "total": self.total, "kept": self.kept, "rejects": self.rejects,
                "mended": dict(self.mended), "duplicates": self.duplicates, "notes": self.notes}


def open_source(ref: str | Path) -> tuple[Any, str]:
    """(reader, label) of a dataset reference or a path.

    Raises:
        StudioError: with ``field="dataset"``.
    """
    if isinstance(ref, Path):
        return open_rows(ref), ref.name
    from studio.library import refs

    found, part = refs.resolve_dataset(ref), ref.partition("#")[2]
    if "file" in found.meta and found.hub_id:
        from studio import hub

        return open_rows(hub.file(found.hub_id, found.meta["file"], found.revision)), found.label
    if found.path is None:
        from studio.datasets.hubrows import HubReader

        part = part or found.meta.get("part", "")
        return HubReader(str(found.hub_id), found.revision, part), found.label
    if found.path.is_dir():
        from studio.datasets.version import META, VersionReader

        if not (found.path / META).exists() and found.meta.get("version") is None and _may_be_read(found.path):
            return open_folder(found.path), found.label
        return VersionReader(found.path, part), found.label
    return open_rows(found.path), found.label


def _may_be_read(folder: Path) -> bool:
    """On a shared studio only a folder of uploads is: the workspace itself holds other people's things."""
    from studio import settings

    uploads = settings.home() / "uploads"
    return not settings.on_space() or (folder.resolve() != uploads and folder.resolve().is_relative_to(uploads))


def load_rows(ref: str | Path, columns: dict[str, str] | None = None, format: str = "auto",
              purpose: str = "sft") -> Rows:
    """The usable rows of a dataset, detected and normalised.

    Args:
        ref: A dataset reference (``shipped:polite``, ``hub:owner/name@rev#config/split``, a path ...).
        columns: role -> column, overriding what is detected.
        format: A key of :data:`FORMATS`, or ``auto``.
        purpose: ``sft``: rows are ``messages``, ``prompt``/``completion`` or ``text``; of pairs the chosen answer, of
            rated answers the good ones. ``as_is``: pairs and ratings are kept.

    Raises:
        StudioError: unreadable or of no known format (``dataset``), wrong columns (``columns``). Iterating raises it
            too, where the file breaks further on or when no row is left.
    """
    if purpose not in ("sft", "as_is"):
        raise ValueError(f"purpose is sft or as_is, not {purpose!r}")
    source, _ = open_source(ref)
    return rows_of(source, columns, format, purpose)


def rows_of(source: Any, columns: dict[str, str] | None = None, format: str = "auto", purpose: str = "sft") -> Rows:
    """As :func:`load_rows`, of an open reader."""
    known = hasattr(source, "detected")
    sample = [] if known else list(islice(iter(source), SAMPLE))
    return Rows(source, detected_of(source, sample, columns, format), purpose)


def own_validation(ref: str) -> str | None:
    """Reference of the validation rows that a dataset made here brings with it, if it was split."""
    from studio.library import refs

    path = refs.resolve_dataset(ref).path
    if "#" in ref or path is None or not path.is_dir():
        return None
    from studio.datasets.version import Version

    return f"{ref}#validation" if "validation" in Version(path).splits else None


def detected_of(source: Any, sample: list[Row], columns: dict[str, str] | None = None,
                format: str = "auto") -> Detected:
    """What the rows are: known of a dataset made here, found out from a sample of any other."""
    known = getattr(source, "detected", None)
    return known or detect(sample, columns, format)


def check(ref: str, columns: dict[str, str] | None = None, format: str = "auto", seconds: float = 0.4,
          purpose: str = "sft") -> None:
    """Refuse now what would fail later: reads as much of a local dataset as ``seconds`` allow.

    Raises:
        StudioError: as :func:`load_rows` and iterating its rows do.
    """
    from studio.library import refs

    found = refs.resolve_dataset(ref)
    path = found.path
    if path is None:
        if "file" not in found.meta:
            from studio.datasets.hubrows import part_of

            part_of(ref.partition("#")[2])
        return  # what the Hub holds is only known when it is fetched
    state = path.stat()
    _checked(ref, tuple(sorted((columns or {}).items())), format, seconds, purpose, str(path), state.st_mtime_ns,
             state.st_size)


@lru_cache(maxsize=64)
def _checked(ref: str, columns: tuple, format: str, seconds: float, purpose: str, *state: Any) -> None:
    """Checked once per state of the file, because a form asks at every keystroke; refusals are not kept."""
    until = time.monotonic() + seconds
    for _ in load_rows(ref, dict(columns), format, purpose):
        if time.monotonic() > until:
            break


def content_hash(row: Any, seed: int = 0) -> bytes:
    """Eight bytes that are the same for the same content, on every machine."""
    return hashlib.blake2b(compact(row).encode(), digest_size=8, key=seed.to_bytes(8, "big", signed=True)).digest()


def split(rows: Iterable[T], eval_share: float, seed: int = 0) -> tuple[list[T], list[T]]:
    """(training rows, validation rows), both in the order of ``rows``.

    Rows are ranked by a hash of their content and the seed, and the lowest are validated on until the share is
    reached. So the split does not depend on the order of the file, identical rows never stand on both sides, and there
    is at least one row on each side; with a single distinct row, or a share of 0, all are trained on.
    """
    rows = list(rows)
    groups: dict[bytes, list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault(content_hash(row, seed), []).append(i)
    if eval_share <= 0 or len(groups) < 2:
        return rows, []
    wanted = max(1, round(len(rows) * eval_share))
    held: set[int] = set()
    for key in sorted(groups)[:-1]:
        if held and len(held) + len(groups[key]) > wanted:
            break
        held.update(groups[key])
    return [r for i, r in enumerate(rows) if i not in held], [r for i, r in enumerate(rows) if i in held]
