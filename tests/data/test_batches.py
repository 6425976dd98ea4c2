"""The quick way of writing whole batches makes the same dataset as the slow one, row by row."""

from __future__ import annotations

from pathlib import Path

import pytest

from studio.datasets import version as versions
from studio.datasets.version import COLUMNS, Version, Writer


def _made(folder: Path, rows: int = 500) -> Version:
    with Writer(folder) as out:
        for i in range(rows):
            out.add({"text": f"Line {i}. Grüße 😀"} if i % 3 else {"prompt": f"Q{i}", "completion": "A", "label": i % 2 == 0},
                    source=f"s{i % 4}", score=i / 10 if i % 5 else None, tags={"site": f"x{i % 2}"} if i % 7 else None)
        return out.close({"method": "x"})


def _files(version: Version) -> dict[str, list]:
    import pyarrow.parquet as pq

    return {path.name: pq.read_table(path).to_pylist() for path in sorted(version.path.glob("*.parquet"))}


@pytest.mark.parametrize("size", [1, 7, 64, 4096])
def test_batches_and_rows_make_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size) -> None:
    source = _made(tmp_path / "source")
    monkeypatch.setattr(versions, "BATCH", 100)

    def good(item) -> bool:
        return int(item.id, 16) % 4 != 0

    with Writer(tmp_path / "slow", {"odd": "are odd"}) as out:
        for item in source.items():
            out.keep(item) if good(item) else out.drop(item, "odd", f"id {item.id}")
        slow = out.close({"method": "x"}, source)
    with Writer(tmp_path / "fast", {"odd": "are odd"}) as out:
        taken = 0
        for batch in source.batches(columns=list(COLUMNS), size=size):
            items = [versions.Item(*values) for values in zip(*(batch.column(n).to_pylist() for n in COLUMNS), strict=True)]
            if taken % 2:
                for item in items:
                    out.keep(item) if good(item) else out.drop(item, "odd", f"id {item.id}")
            else:
                out.keep_batch(batch, [good(item) for item in items], "odd", [f"id {item.id}" for item in items])
            taken += 1
        fast = out.close({"method": "x"}, source)
    assert fast.hash == slow.hash and 0 < fast.count() < source.count()
    assert _files(fast) == _files(slow)
    for key in ("format", "rows", "sources"):
        assert fast.meta[key] == slow.meta[key]
    entries = [{k: v for k, v in made.meta["history"][-1].items() if k not in ("seconds", "made")} for made in (fast, slow)]
    assert entries[0] == entries[1]


def test_small_pieces_make_large_groups(tmp_path: Path) -> None:
    """A filter that leaves a row in each batch does not leave a row group for each."""
    import pyarrow.parquet as pq

    source = _made(tmp_path / "source", 3000)
    with Writer(tmp_path / "d") as out:
        for batch in source.batches(columns=list(COLUMNS), size=10):
            out.keep_batch(batch, [True] + [False] * (batch.num_rows - 1), "no")
        made = out.close({"method": "x"}, source)
    assert made.count() == 300 and pq.ParquetFile(made.file()).metadata.num_row_groups == 1


def test_batches_of_huge_rows_are_small(tmp_path: Path) -> None:
    """What is read at once is bounded in bytes, not only in rows."""
    with Writer(tmp_path / "d") as out:
        for i in range(12):
            out.add({"text": f"{i} " + "x" * (2 << 20)})
        made = out.close({"method": "x"})
    assert max(batch.nbytes for batch in made.batches()) <= versions.GROUP_BYTES + (3 << 20)
