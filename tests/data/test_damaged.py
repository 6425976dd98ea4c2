"""Files of every type with bytes flipped, cut out and cut off: rows or a refusal, never a crash, never a hang."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import random
import time
import zipfile
from pathlib import Path

import pytest
import zstandard

from studio.datasets.readers import open_rows
from studio.errors import StudioError
from tests.data.test_documents import HTML, docx, para, pdf

ROWS = [{"messages": [{"role": "user", "content": f"Où {i}?"}, {"role": "assistant", "content": "Là."}], "n": i} for i in range(60)]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


def samples(folder: Path) -> dict[str, bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), sink)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("a.jsonl", LINES)
        made.writestr("b.parquet", sink.getvalue())
        made.writestr("c.pdf", pdf(["One.", "Two."]))
    word = docx(folder / "made.docx", para("Bees", "Heading1") + para("Honey."), "Title").read_bytes()
    return {"a.jsonl": LINES, "a.json": json.dumps(ROWS).encode(), "a.csv": b"prompt,completion\n" + b'"Why?","Because."\n' * 40,
            "a.jsonl.gz": gzip.compress(LINES), "a.jsonl.bz2": bz2.compress(LINES), "a.jsonl.xz": lzma.compress(LINES),
            "a.jsonl.zst": zstandard.compress(LINES), "a.parquet": sink.getvalue(), "a.zip": packed.getvalue(),
            "a.pdf": pdf(["One.", "Two."], "T"), "a.docx": word, "a.html": HTML.encode(), "a.txt": HTML.encode()[20:],
            "a.md": b"# T\n\n```\ncode\n```\n\nText.\n"}


def damaged(data: bytes, draw: random.Random) -> bytes:
    made = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 8))):
        at = draw.randrange(len(made)) if made else 0
        kind = draw.random()
        if kind < 0.4 and made:
            made[at] = draw.randrange(256)
        elif kind < 0.6:
            del made[at:at + draw.randint(1, 40)]
        elif kind < 0.8:
            made[at:at] = draw.randbytes(draw.randint(1, 12))
        else:
            del made[at:]
    return bytes(made)


@pytest.mark.timeout(90)
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.jsonl.gz", "a.jsonl.bz2", "a.jsonl.xz", "a.jsonl.zst", "a.parquet",
                                  "a.zip", "a.pdf", "a.docx", "a.html", "a.txt", "a.md"])
def test_damaged_files(tmp_path: Path, name: str) -> None:
    data, draw = samples(tmp_path)[name], random.Random(name)
    path = tmp_path / name
    path.write_bytes(data)
    assert list(open_rows(path)), "whole, it is read"
    refused, until = 0, time.monotonic() + 4
    for _ in range(120):
        path.write_bytes(damaged(data, draw))
        try:
            json.dumps(list(open_rows(path)), default=str)
        except StudioError as err:
            refused += 1
            assert err.message and err.hint and err.field == "dataset" and str(tmp_path) not in err.message
        if time.monotonic() > until:
            break
    assert refused or name in ("a.html", "a.txt", "a.md", "a.csv", "a.jsonl", "a.docx")
