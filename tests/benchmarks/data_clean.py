"""Near-deduplication and filters of short rows, against rensa and datasketch called alone: rows/s of
processor time, peak memory, recall, false alarms.

Every side runs in a process of its own on one thread and reads the same file. Of the rows a fifth is planted, one or two words
away from an earlier row, and a fifth shares half its words with one, which is no duplicate.
``ATELIER_ROWS=1000000 python -m tests.benchmarks data_clean`` for more rows than usual.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

ROWS = int(os.environ.get("ATELIER_ROWS", 100_000))
THRESHOLD, PERMUTATIONS, PIECE = 0.7, 128, 5
LOOKED_AT = 60_000  # rows whose truth is worked out by counting shared words


def generate(folder: Path) -> None:
    """A version of ``ROWS`` short rows; the source column says what each is."""
    from studio.datasets.version import Item, Writer, row_id

    dice = random.Random(1)
    words = ["".join(dice.choices("abcdefghijklmnoprstuvwz", k=dice.randint(2, 9))) for _ in range(20_000)]
    plain: list[list[str]] = []
    with Writer(folder) as out:
        for i in range(ROWS):
            if i < 1000 or i % 5 < 3:
                kind, made = "plain", dice.choices(words, k=dice.randint(8, 25))
                if len(plain) < 50_000:
                    plain.append(made)
            else:
                kind, made = ("planted", "half")[i % 5 - 3], list(plain[dice.randrange(len(plain))])
                for _ in range(dice.randint(1, 2) if kind == "planted" else len(made) // 2):
                    made[dice.randrange(len(made))] = dice.choice(words)
            text = json.dumps({"text": " ".join(made)})
            out.put(Item(row_id(text), text, kind, len(text) - 12, 1, "en"))
        out.close({"method": "import"})


def texts(folder: Path) -> Iterator[str]:
    from studio.datasets.version import Version

    for row in Version(folder).rows():
        yield row["text"]


def pieces(text: str) -> set[str]:
    return {text[i:i + PIECE] for i in range(max(1, len(text) - PIECE + 1))}


def studio(folder: Path) -> list[int]:
    """The step as it runs in a job: reads a version, writes another and the rows left out."""
    from studio import registry
    from studio.datasets.step import execute
    from studio.datasets.version import Version
    from studio.jobs.context import Context
    from studio.recipe import parse

    recipe = parse({"kind": "data", "method": "near_dedup", "dataset": "x", "threshold": THRESHOLD, "keep": "first", "ngram": PIECE})
    made = execute(registry.method("data", "near_dedup"), recipe, Version(folder), folder.with_name("out"),
                   Context(folder.with_name("run")))
    return [made.count()]


def rensa(folder: Path) -> list[int]:
    """rensa alone, batch by batch: rows that share a band with an earlier one or one of their batch, unverified, nothing written."""
    from rensa import RMinHash, RMinHashLSH

    index, flags = RMinHashLSH(THRESHOLD, 125, 25), []
    rows = texts(folder)
    while part := list(islice(rows, 4096)):
        matrix = RMinHash.digest_matrix_from_token_sets([list(pieces(text)) for text in part], 125, 42)
        flags += map(int, index.insert_matrix_and_query_duplicate_flags(matrix, len(flags)))
    return flags


def datasketch(folder: Path) -> list[int]:
    """datasketch alone: each row is looked for in the index and put into it where nothing was found, unverified, nothing written."""
    from datasketch import MinHash, MinHashLSH

    index, flags = MinHashLSH(THRESHOLD, PERMUTATIONS), []
    for number, text in enumerate(texts(folder)):
        made = MinHash(PERMUTATIONS)
        made.update_batch([piece.encode() for piece in pieces(text)])
        found = bool(index.query(made))
        flags.append(int(found))
        if not found:
            index.insert(number, made)
    return flags


def filters(folder: Path) -> list[int]:
    """Rules that have to look into each row: symbols, repetition, a pattern."""
    return _filter(folder, {"max_symbols": 0.3, "max_repetition": 0.5, "drop_pattern": r"\bqu\w+ing\b"})


def columns(folder: Path) -> list[int]:
    """Rules that the columns answer, and empty rows."""
    return _filter(folder, {"min_chars": 60, "max_chars": 150, "languages": ["en"]})


def _filter(folder: Path, values: dict) -> list[int]:
    from studio import registry
    from studio.datasets.step import execute
    from studio.datasets.version import Version
    from studio.jobs.context import Context
    from studio.recipe import parse

    recipe = parse({"kind": "data", "method": "filter", "dataset": "x", **values})
    return [execute(registry.method("data", "filter"), recipe, Version(folder), folder.with_name("out"),
                    Context(folder.with_name("run"))).count()]


def _child(side: str, folder: str) -> None:
    began = time.process_time()
    made = globals()[side](Path(folder))
    took = time.process_time() - began
    peak = int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) >> 10
    if len(made) > 1:
        Path(folder).with_name("flags.json").write_text(json.dumps(made))
    print(json.dumps({"took": took, "peak": peak, "made": made[0] if len(made) == 1 else None}))


def measured(side: str, folder: Path) -> dict:
    done = subprocess.run([sys.executable, "-m", "tests.benchmarks.data_clean", side, str(folder)], capture_output=True, text=True,
                          timeout=1800, env=os.environ | {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1",
                                                          "STUDIO_HOME": str(folder.parent / "home")})
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout)


def found_by(side: str, folder: Path) -> set[str]:
    """Texts of the rows that a side would leave out."""
    from studio.datasets.version import Version

    if side == "studio":
        return {json.loads(row)["text"] for batch in Version(folder.with_name("out")).batches("dropped", ["row"])
                for row in batch.column(0).to_pylist()}
    flags = json.loads(folder.with_name("flags.json").read_text())
    return {text for text, flag in zip(texts(folder), flags, strict=True) if flag}


def judged(gone: set[str], folder: Path) -> str:
    """Recall of the planted rows that truly are near duplicates of an earlier one, and the share of other rows that went too."""
    from studio.datasets.version import Version

    kinds = [(item.source, item.row["text"]) for item in Version(folder).items()]
    earlier: dict[str, set[int]] = {}  # which rows hold a word, to find the truth without the method that is tested
    sets: list[set[str]] = []
    like, hit, unlike, alarms = 0, 0, 0, 0
    for number, (kind, text) in enumerate(kinds[:LOOKED_AT]):
        mine, votes = pieces(text), {}
        for word in set(text.split()):
            for other in earlier.get(word, ()):
                votes[other] = votes.get(other, 0) + 1
        near = sorted(votes, key=votes.get, reverse=True)[:20]
        top = max((len(mine & sets[o]) / len(mine | sets[o]) for o in near), default=0.0)
        if top >= THRESHOLD:
            like, hit = like + 1, hit + (text in gone)
        else:
            unlike, alarms = unlike + 1, alarms + (text in gone)
        sets.append(mine)
        for word in set(text.split()):
            earlier.setdefault(word, set()).add(number)
    return f"{hit / max(1, like):.2%} / {alarms / max(1, unlike):.3%}"


def sides() -> dict[str, str]:
    """Who can be measured here; datasketch only where it is installed."""
    from importlib.util import find_spec

    return {side: title for side, title in (("studio", "near-dedup step, verified, written"), ("rensa", "rensa alone, unverified"),
                                            ("datasketch", "datasketch alone, unverified")) if side == "studio" or find_spec(side) and (side == "rensa" or ROWS <= 200_000)}


def rows() -> Iterator[tuple[str, str, str]]:
    """(what, measured, aim) of each row of the table."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "rows"
        generate(folder)
        for side, title in sides().items():
            made = measured(side, folder)
            yield f"{title}: {ROWS:,} rows", f"{ROWS / made['took']:,.0f} rows/s", ""
            yield f"{title}: peak memory", f"{made['peak']:,} MB", ""
            yield f"{title}: recall / false alarms", judged(found_by(side, folder), folder), "97% / 0%" if side == "studio" else ""
        for side, title in (("columns", "filter by length and language"), ("filters", "filter by symbols, repetition, pattern")):
            made = measured(side, folder)
            yield f"{title}: {ROWS:,} rows", f"{ROWS / made['took']:,.0f} rows/s", ""
            yield f"{title}: peak memory", f"{made['peak']:,} MB", ""


if __name__ == "__main__":
    _child(sys.argv[1], sys.argv[2])
