"""A dataset of the library: a folder of Parquet files that is written once and never changed.

    train.parquet        the rows; validation.parquet and test.parquet where a split was made
    dropped.parquet      the rows that the step left out, with ``reason`` and ``detail``
    dataset.json         what it holds and how it came about; written last, so a folder without it is not a dataset

A row is one JSON text in its canonical shape (:mod:`studio.datasets.convert`), because chats, tools, pairs and ratings share no
Arrow schema; beside it stand the columns that tables are filtered and sorted by. ``export`` writes typed files for
other programs.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from studio.datasets.convert import turns_of
from studio.datasets.language import language
from studio.datasets.roles import FORMATS, Detected
from studio.errors import StudioError
from studio.jobs.files import read_json, write_json

Row = dict[str, Any]

SPLITS = ("train", "validation", "test")
BATCH = 4096  # rows of one batch, and the most of one Parquet row group
GROUP_BYTES = 8 << 20  # text of one row group, before compression
COLUMNS = ("id", "row", "source", "chars", "turns", "lang", "score", "label", "tags")
META = "dataset.json"
LAYOUT = 1


def schema(dropped: bool = False) -> Any:
    """Arrow schema of the row files.

    ``id`` names the content a row had when it came in, so versions can be compared; identical rows share it.
    ``chars`` counts the characters of all messages, ``turns`` the messages; ``lang`` is a two- or three-letter code or
    empty; ``label`` is ``good``, ``bad`` or null; ``score`` is a judge's or a reward model's number.
    """
    import pyarrow as pa

    columns = [("id", pa.string()), ("row", pa.string()), ("source", pa.string()), ("chars", pa.int32()),
               ("turns", pa.int16()), ("lang", pa.string()), ("score", pa.float32()), ("label", pa.string()),
               ("tags", pa.map_(pa.string(), pa.string()))]
    return pa.schema(columns + ([("reason", pa.string()), ("detail", pa.string())] if dropped else []))


def dump(row: Row) -> str:
    """A canonical row as the text that is stored."""
    try:
        return orjson.dumps(row).decode()
    except TypeError:  # a lone surrogate, which no file can hold, or a number beyond 64 bits
        return json.dumps(row, ensure_ascii=False, default=str).encode("utf-8", "replace").decode()


def row_id(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).hexdigest()


def shape_of(row: Row) -> str:
    """Key of :data:`studio.datasets.roles.FORMATS` that a canonical row belongs to."""
    if "chosen" in row:
        return "preference"
    if "label" in row:
        return "rated"
    return "messages" if "messages" in row else "text" if "text" in row else "prompt_completion"


@dataclass(slots=True)
class Item:
    """One stored row with its columns. ``row`` is read from ``text`` when asked for; change neither in place."""

    id: str
    text: str
    source: str = ""
    chars: int = 0
    turns: int = 0
    lang: str = ""
    score: float | None = None
    label: str | None = None
    tags: list[tuple[str, str]] | None = None

    @property
    def row(self) -> Row:
        return orjson.loads(self.text)


def item_of(row: Row, source: str = "", id: str = "", score: float | None = None,
            tags: dict[str, Any] | None = None) -> Item:
    """A new row with its columns worked out. ``tags`` are added to the row's own."""
    text = dump(row)
    parts = [str(turn.get("content") or "") for turn in turns_of(row)]
    if "rejected" in row:
        worse = row["rejected"]
        parts += [str(m.get("content") or "") for m in worse] if isinstance(worse, list) else [str(worse)]
    label = row.get("label")
    own = {str(k): str(v) for k, v in {**(row.get("tags") or {}), **(tags or {})}.items()}
    return Item(id or row_id(text), text, source, sum(map(len, parts)), len(parts), language(" ".join(parts)), score,
                None if label is None else "good" if label else "bad", list(own.items()) or None)


class Version:
    """A complete dataset folder, opened for reading.

    Attributes:
        meta: ``format``, ``rows`` {split: n}, ``hash``, ``sources``, ``history`` (one entry a step, the oldest first: see
            :meth:`Writer.close`), ``created``.

    Raises:
        StudioError: with ``field="dataset"``: the folder is none, is unfinished, or of a newer studio.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        meta = read_json(self.path / META)
        if meta is None:
            raise StudioError(f"{self.path.name} is not a dataset of the studio, or was not finished.",
                              "Choose another, or run the step that makes it again.", "dataset")
        if meta.get("layout", 0) > LAYOUT:
            raise StudioError(f"{self.path.name} was written by a newer studio.", "Update the studio.", "dataset")
        self.meta = meta

    @property
    def splits(self) -> list[str]:
        return [name for name in SPLITS if name in self.meta["rows"]]

    @property
    def hash(self) -> str:
        return self.meta["hash"]

    def count(self, split: str = "train") -> int:
        return self.meta["rows"].get(split, 0)

    def file(self, split: str = "train") -> Path:
        """Parquet file of a split; ``dropped`` for the rows left out, which may be missing."""
        return self.path / f"{split}.parquet"

    def batches(self, split: str = "train", columns: list[str] | None = None, size: int = BATCH) -> Iterator[Any]:
        """Arrow record batches, in order, at constant memory."""
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.file(split)) as file:
            for group in range(file.num_row_groups):  # one at a time: a batch across groups of huge rows would hold them all
                yield from file.iter_batches(batch_size=size, row_groups=[group], columns=columns)

    def items(self, split: str = "train") -> Iterator[Item]:
        for batch in self.batches(split, list(COLUMNS)):
            for values in zip(*(batch.column(name).to_pylist() for name in COLUMNS), strict=True):
                yield Item(*values)

    def rows(self, split: str = "train") -> Iterator[Row]:
        """Canonical rows."""
        for batch in self.batches(split, ["row"]):
            for text in batch.column(0).to_pylist():
                yield orjson.loads(text)


class VersionReader:
    """A split of a version with the attributes that :class:`studio.datasets.formats.Rows` uses of a reader."""

    kind, encoding, mended = "version", "utf-8", 0

    def __init__(self, path: Path, split: str = ""):
        self.version = Version(path)
        self.split = split or "train"
        if self.split not in self.version.splits:
            raise StudioError(f"This dataset has no split '{self.split}'.",
                              f"It has {', '.join(self.version.splits)}.", "dataset")
        self.size = self.version.file(self.split).stat().st_size
        self.rows = 0
        self.bad: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}
        format = self.version.meta["format"]
        self.detected = Detected(format, {}, [f"Made here: {FORMATS.get(format, 'rows of several formats')}."],
                                 columns=[], canonical=True)

    @property
    def consumed(self) -> int:
        return int(self.size * self.rows / max(1, self.version.count(self.split)))

    def __iter__(self) -> Iterator[Row]:
        self.rows = 0
        for row in self.version.rows(self.split):
            self.rows += 1
            yield row
        if not self.rows:
            raise StudioError("This dataset has no rows.", "Choose another, or loosen the step that emptied it.",
                              "dataset")

    def count(self) -> int:
        return self.version.count(self.split)


class Writer:
    """Writes a dataset folder row by row; nothing counts until :meth:`close`.

        with Writer(folder) as out:
            for item in source.items():
                out.keep(item) if good(item) else out.drop(item, "too_short")

    Args:
        texts: reason -> sentence for a person, for what is dropped or changed.
    """

    def __init__(self, folder: str | Path, texts: dict[str, str] | None = None):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / META).unlink(missing_ok=True)
        self.texts = texts or {}
        self.rows: Counter[str] = Counter()
        self.rows_in = self.rows_out = self.changed = self.dropped = 0
        self.reasons: Counter[str] = Counter()
        self.mended: Counter[str] = Counter()  # what was put right on the way in
        self.shapes: Counter[str] = Counter()
        self.sources: Counter[str] = Counter()
        self.split = "train"
        self.seen: set[str] = set()  # splits that rows were dropped from
        self._files: dict[str, _File] = {}
        self._began = time.time()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        for file in self._files.values():
            file.abandon()

    def add(self, row: Row, source: str = "", score: float | None = None, tags: dict[str, Any] | None = None) -> Item:
        """A row that was not there before."""
        item = item_of(row, source, score=score, tags=tags)
        self.rows_out += 1
        self._put(self.split, item)
        return item

    def put(self, item: Item) -> None:
        """A row that was not there before and has its columns already: of another dataset, or a copy."""
        self.rows_out += 1
        self._put(self.split, item)

    def keep(self, item: Item) -> None:
        """A row of the input as it is."""
        self.rows_in += 1
        self.rows_out += 1
        self._put(self.split, item)

    def change(self, item: Item, row: Row, reason: str, score: float | None = None) -> None:
        """A row of the input with another content; it keeps its id."""
        made = item_of(row, item.source, item.id, item.score if score is None else score, dict(item.tags or []))
        self.rows_in += 1
        self.rows_out += 1
        self.changed += 1
        self.reasons[reason] += 1
        self._put(self.split, made)

    def drop(self, item: Item, reason: str, detail: str = "") -> None:
        """A row of the input that is left out; it can be looked at later."""
        self.rows_in += 1
        self.dropped += 1
        self.reasons[reason] += 1
        self.seen.add(self.split)
        self._file("dropped").put(item, (reason, detail[:500]))

    def reject(self, reason: str, detail: str = "", source: str = "", row: Any = None, count: int = 1) -> None:
        """Something that never was a usable row: a broken line, a generation that failed its check."""
        self.rows_in += count
        self.dropped += count
        self.reasons[reason] += count
        text = dump(row if isinstance(row, dict) else {"text": "" if row is None else str(row)[:20_000]})
        self._file("dropped").put(Item(row_id(text), text, source), (reason, detail[:500]))

    def keep_batch(self, batch: Any, mask: Any = None, reason: Any = "", detail: Any = "") -> None:
        """Many rows of the input at once, in order: what :meth:`keep` and :meth:`drop` do row by row, without making an
        :class:`Item` of each.

        Args:
            batch: A record batch with :data:`COLUMNS`, as :meth:`Version.batches` gives it.
            mask: True for each row that is kept; ``None`` keeps all.
            reason, detail: One text for all that are dropped, or one per row of the batch.
        """
        import numpy as np

        kept = batch if mask is None else batch.filter(_mask(mask := np.asarray(mask, bool)))
        self.rows_in += batch.num_rows
        self.rows_out += kept.num_rows
        self._put_batch(self.split, kept)
        if mask is None or kept.num_rows == batch.num_rows:
            return
        out = np.flatnonzero(~mask)
        why = [[one] * len(out) if isinstance(one, str) else [one[i] for i in out] for one in (reason, detail)]
        self.dropped += len(out)
        self.seen.add(self.split)
        self.reasons.update(why[0])
        self._file("dropped").put_batch(batch.filter(_mask(~mask)), [why[0], [text[:500] for text in why[1]]])

    def copy(self, version: Version, splits: list[str]) -> None:
        """Take other splits over as they are; they do not count as rows in or out of this step."""
        for split in splits:
            for batch in version.batches(split, list(COLUMNS)):
                self._put_batch(split, batch)

    def _put_batch(self, split: str, batch: Any) -> None:
        import pyarrow.compute as pc

        if not batch.num_rows:
            return
        self._file(split).put_batch(batch)
        self.rows[split] += batch.num_rows
        for pair in pc.value_counts(batch.column("source")).to_pylist():
            self.sources[pair["values"]] += pair["counts"]
        texts, known = batch.column("row"), 0
        for shape in ("messages", "text"):
            if found := pc.sum(pc.starts_with(texts, f'{{"{shape}"')).as_py():
                self.shapes[shape] += found
                known += found
        if known < batch.num_rows:
            self.shapes.update(shape_of_text(text) for text in texts.to_pylist()
                               if not text.startswith(('{"messages"', '{"text"')))

    def _put(self, split: str, item: Item) -> None:
        self._file(split).put(item)
        self.rows[split] += 1
        self.sources[item.source] += 1
        self.shapes[shape_of_text(item.text)] += 1

    def _file(self, name: str) -> _File:
        if name not in self._files:
            self._files[name] = _File(self.folder / f"{name}.parquet", name == "dropped")
        return self._files[name]

    def close(self, step: dict[str, Any], parent: Version | None = None, **more: Any) -> Version:
        """Finish the folder and write ``dataset.json``.

        Args:
            step: The recipe of the step, as plain values without its dataset.
            parent: The version that was read; its history goes on here.
            **more: Further facts for this entry of the history.

        Raises:
            StudioError: no row is left.
        """
        if not self.rows["train"]:
            why = "; ".join(f"{n:,} {self.texts.get(code, code)}" for code, n in self.reasons.most_common(3))
            raise StudioError("No row is left" + (f": {why}." if why else "."), "Loosen the step, or check its input.")
        whole = hashlib.blake2b(digest_size=16)
        for name in sorted(self._files):
            digest = self._files[name].close()
            if name != "dropped":
                whole.update(name.encode() + digest)
        format = next(iter(self.shapes)) if len(self.shapes) == 1 else "mixed"
        reasons = [{"code": code, "message": self.texts.get(code, code), "count": n}
                   for code, n in self.reasons.most_common()]
        entry = {"step": step, "rows_in": self.rows_in, "rows_out": self.rows_out, "changed": self.changed,
                 "dropped": self.dropped, "reasons": reasons, "hash": whole.hexdigest(), "seconds": round(time.time() - self._began, 2), "made": time.time(), **more}
        if self.mended:
            entry["mended"] = [{"code": code, "message": self.texts.get(code, code), "count": n}
                               for code, n in self.mended.most_common()]
        meta = {"layout": LAYOUT, "format": format, "rows": {k: n for k, n in self.rows.items() if n},
                "hash": whole.hexdigest(), "sources": dict(self.sources.most_common(200)), "created": time.time(),
                "history": [*(parent.meta["history"] if parent else []), entry]}
        write_json(self.folder / META, meta)
        return Version(self.folder)


def _mask(values: Any) -> Any:
    import pyarrow as pa

    return pa.array(values, pa.bool_())


def shape_of_text(text: str) -> str:
    """:func:`shape_of` from the stored text: canonical rows begin with their telling key."""
    if text.startswith('{"messages"'):
        return "messages"
    return "text" if text.startswith('{"text"') else shape_of(orjson.loads(text))


class _File:
    """One Parquet file under a temporary name."""

    def __init__(self, path: Path, dropped: bool):
        import pyarrow.parquet as pq

        self.path, self.part = path, path.with_name(f".{path.name}.part")
        self.schema = schema(dropped)
        self._writer = pq.ParquetWriter(self.part, self.schema, compression="zstd", compression_level=3)
        self._digest = hashlib.blake2b(digest_size=16)
        self._marks = hashlib.blake2b(digest_size=16)  # scores and tags, by which steps tell rows apart
        self._written = 0
        self._columns: list[list[Any]] = [[] for _ in self.schema]
        self._waiting: list[Any] = []  # batches that are not yet a row group
        self._rows = self._bytes = 0
        self._open = True

    def put(self, item: Item, more: tuple[str, ...] = ()) -> None:
        values = (item.id, item.text, item.source, item.chars, item.turns, item.lang, item.score, item.label, item.tags,
                  *more)
        for column, value in zip(self._columns, values, strict=True):
            column.append(value)
        data = item.text.encode("utf-8", "replace")
        self._digest.update(data)
        self._bytes += len(data)
        self._rows += 1
        if self._bytes >= GROUP_BYTES or self._rows >= BATCH:
            self._flush()

    def put_batch(self, batch: Any, more: list[list[str]] | None = None) -> None:
        """Rows of another file of this layout; ``more`` are the columns ``reason`` and ``detail``."""
        import pyarrow as pa

        columns = [batch.column(name) for name in COLUMNS] + [pa.array(texts, pa.string()) for texts in more or []]
        batch = pa.record_batch(columns, schema=self.schema)
        self._gather()
        for start in range(0, batch.num_rows, BATCH):
            part = batch.slice(start, BATCH)
            data = _bytes_of(part.column("row"))
            self._digest.update(data)
            self._bytes += len(data)
            self._rows += part.num_rows
            self._waiting.append(part)
            if self._bytes >= GROUP_BYTES or self._rows >= BATCH:
                self._flush()

    def _gather(self) -> None:
        """Rows that came one by one, as a batch."""
        import pyarrow as pa

        if self._columns[0]:
            arrays = [pa.array(column, field.type) for column, field in zip(self._columns, self.schema, strict=True)]
            self._waiting.append(pa.record_batch(arrays, schema=self.schema))
            self._columns = [[] for _ in self.schema]

    def _flush(self) -> None:
        import pyarrow as pa

        self._gather()
        if self._waiting:
            table = pa.Table.from_batches(self._waiting, self.schema).combine_chunks()
            self._writer.write_table(table)
            if table["score"].null_count + table["tags"].null_count < 2 * len(table):
                marks = zip(table["score"].to_pylist(), table["tags"].to_pylist(), strict=True)
                for number, (score, tags) in enumerate(marks, self._written):
                    if score is not None or tags:
                        self._marks.update(f"{number} {score} {sorted(tags or [])}\n".encode())
            self._written += len(table)
        self._waiting, self._rows, self._bytes = [], 0, 0

    def close(self) -> bytes:
        self._flush()
        self._writer.close()
        self._open = False
        os.replace(self.part, self.path)
        return self._digest.digest() + self._marks.digest()

    def abandon(self) -> None:
        if self._open:
            self._open = False
            self._writer.close()
            self.part.unlink(missing_ok=True)


def _bytes_of(texts: Any) -> memoryview:
    """The UTF-8 of all texts of an Arrow string array, one after the other, where it lies."""
    import numpy as np

    _, offsets, data = texts.buffers()
    ends = np.frombuffer(offsets, np.int32)[texts.offset:texts.offset + len(texts) + 1]
    return memoryview(data)[int(ends[0]):int(ends[-1])] if len(texts) and data is not None else memoryview(b"")
