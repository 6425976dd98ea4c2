"""The table of a million rows: pages, filters, search, sort, statistics, diff, against DuckDB and pyarrow alone.

Every side runs in a process of its own, on one thread and on the same file; a question is asked for the first time,
unless said. Times are of the processor, so that they hold on a busy machine too.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROWS = 1_000_000
SEARCH, PATTERN = "zab", "^q[aeiou]+ .*[0-9]$"
CHARS = (100, 300)
DEEP = 900_000
PAGE = 100
LOOKED_AT = 50_000


def generate(folder: Path, changed: int = 0) -> None:
    """A version of short chats in made-up words; every ``changed``-th answer is another one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from studio.datasets.version import BATCH, META, schema
    from studio.jobs.files import write_json

    dice = random.Random(1)
    words = ["".join(dice.choices("abcdefghijklmnoprstuvwz", k=dice.randint(2, 9))) for _ in range(20_000)]
    folder.mkdir(parents=True)
    with pq.ParquetWriter(folder / "train.parquet", schema(), compression="zstd", compression_level=3) as out:
        for start in range(0, ROWS, BATCH):
            numbers = range(start, min(start + BATCH, ROWS))
            texts = [f'{{"messages":[{{"role":"user","content":"{" ".join(dice.choices(words, k=8))}"}},'
                     f'{{"role":"assistant","content":"{" ".join(dice.choices(words, k=dice.randint(5, 60)))} {i}'
                     f'{" changed" if changed and i % changed == 0 else ""}"}}]}}' for i in numbers]
            out.write_batch(pa.record_batch([
                pa.array([f"{i:016x}" for i in numbers]), pa.array(texts),
                pa.array([f"file{i % 5}.jsonl" for i in numbers]),
                pa.array([len(text) - 74 for text in texts], pa.int32()), pa.array([2] * len(texts), pa.int16()),
                pa.array(dice.choices(("en", "en", "de", "fr"), k=len(texts))),
                pa.array([dice.random() for _ in texts], pa.float32()),
                pa.array(dice.choices(("good", "bad", None), k=len(texts)), pa.string()),
                pa.array([[("site", f"s{i % 7}")] if i % 2 else None for i in numbers], schema().field("tags").type)],
                schema=schema()))
    entry = {"step": {"method": "import", "sources": ["x"]}, "inputs": {}, "rows_in": ROWS, "rows_out": ROWS,
             "changed": 0, "dropped": 0, "reasons": [], "hash": f"{changed:032x}", "seconds": 0, "made": time.time()}
    write_json(folder / META, {"layout": 1, "format": "messages", "rows": {"train": ROWS}, "hash": f"{changed:032x}",
                               "sources": {}, "created": time.time(), "history": [entry]})


def ours(folder: Path) -> dict[str, Callable[[], Any]]:
    """The studio, as the page asks it."""
    from studio.datasets import diff
    from studio.datasets.query import query_of
    from studio.datasets.table import Table
    from studio.datasets.version import Version

    def page(query: dict[str, Any], sort: str | None = None, desc: bool = False, offset: int = 0) -> int:
        return len(Table(Version(folder)).page(query_of(query, sort, desc), offset, PAGE)["rows"])

    return {"first page": lambda: page({}), "menus (facts)": lambda: Table(Version(folder)).facts(),
            "filter": lambda: page({"lang": ["en"], "chars": list(CHARS)}), "search": lambda: page({"search": SEARCH}),
            "regex": lambda: page({"search": PATTERN, "regex": True}), "sort": lambda: page({}, "score", True),
            "deep": lambda: page({}, offset=DEEP), "deep sorted": lambda: page({}, "score", True, DEEP),
            "search again": lambda: page({"search": SEARCH}, offset=1000),
            "counts of menus": lambda: Table(Version(folder)).facets(query_of({"lang": ["en"]})),
            "diff": lambda: diff.diff(Version(folder), Version(folder.with_name("b"))),
            "diff, next page": lambda: diff.diff(Version(folder), Version(folder.with_name("b")), 5000, PAGE)}


def duckdb(folder: Path) -> dict[str, Callable[[], Any]]:
    """DuckDB alone: the matching row numbers, and the rows of one page."""
    import duckdb as library

    con = library.connect(config={"threads": 1, "memory_limit": "512MB"})
    file = str(folder / "train.parquet")
    columns = "file_row_number, id, row, source, chars, turns, lang, score, label, tags"

    def ask(where: str = "true", values: tuple = (), order: str = "file_row_number", offset: int = 0) -> int:
        found = con.execute(f"SELECT file_row_number FROM read_parquet(?) WHERE {where} ORDER BY {order}",
                            [file, *values]).fetchnumpy()["file_row_number"][offset:offset + PAGE].tolist()
        return len(con.execute(f"SELECT {columns} FROM read_parquet(?) WHERE file_row_number IN (SELECT unnest(?))",
                               [file, found]).fetchall())

    def page(offset: int = 0) -> int:
        sql = f"SELECT {columns} FROM read_parquet(?) LIMIT {PAGE} OFFSET {offset}"
        return len(con.execute(sql, [file]).fetchall())

    return {"first page": page, "filter": lambda: ask("lang = 'en' AND chars BETWEEN ? AND ?", CHARS),
            "search": lambda: ask("row ILIKE ?", (f"%{SEARCH}%",)), "sort": lambda: ask(order="score DESC"),
            "regex": lambda: ask("regexp_matches(row, ?, 'i')", ("\"q[aeiou]+ .*[0-9]\"",)),
            "deep": lambda: page(DEEP), "deep sorted": lambda: ask(order="score DESC", offset=DEEP)}


def pyarrow(folder: Path) -> dict[str, Callable[[], Any]]:
    """pyarrow alone: columns read into memory, computed on, the rows of one page taken."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.dataset as ds

    pa.set_cpu_count(1)
    data = ds.dataset(folder / "train.parquet")

    def ask(condition: Any) -> tuple[int, int]:
        scanner = data.scanner(filter=condition, batch_size=4096, use_threads=False, batch_readahead=1)
        return scanner.head(PAGE).num_rows, data.count_rows(filter=condition, use_threads=False)

    def sort(offset: int) -> int:
        places = pc.sort_indices(data.to_table(columns=["score"], use_threads=False), [("score", "descending")])
        return data.take(places.slice(offset, PAGE)).num_rows

    return {"first page": lambda: data.head(PAGE, use_threads=False).to_pylist(),
            "filter": lambda: ask((pc.field("lang") == "en") & (pc.field("chars") >= CHARS[0])
                                  & (pc.field("chars") <= CHARS[1])),
            "search": lambda: ask(pc.match_substring(pc.field("row"), SEARCH, ignore_case=True)),
            "sort": lambda: sort(0), "deep": lambda: data.take(pa.array(range(DEEP, DEEP + PAGE))).to_pylist(),
            "deep sorted": lambda: sort(DEEP)}


def statistics(folder: Path) -> dict[str, Callable[[], Any]]:
    """The report over all rows, tokens of :data:`LOOKED_AT`."""
    from studio.datasets.steps.statistics import Statistics, StatisticsRecipe
    from studio.datasets.version import Version
    from studio.jobs.context import Context

    def run() -> Any:
        ctx = Context(folder.with_name("run"))
        return Statistics.work(StatisticsRecipe(look_at=LOOKED_AT), Version(folder), ctx)["tokens"]["rows"]

    return {"statistics": run}


def tokenizers(folder: Path) -> dict[str, Callable[[], Any]]:
    """tokenizers alone on as many rows."""
    import pyarrow.parquet as pq
    from tokenizers import Tokenizer

    from studio.settings import STARTER

    def run() -> int:
        tokenizer = Tokenizer.from_file(str(STARTER / "tokenizer.json"))
        batch = next(pq.ParquetFile(folder / "train.parquet").iter_batches(LOOKED_AT, columns=["row"]))
        rows = batch.column(0).to_pylist()
        texts = ["".join(turn["content"] for turn in json.loads(row)["messages"]) for row in rows]
        return sum(len(made) for made in tokenizer.encode_batch_fast(texts))

    return {"tokenise": run}


def step(folder: Path) -> dict[str, Callable[[], Any]]:
    """The filter step: the rows of a version that are long enough and in a language, as a new version."""
    from studio import registry
    from studio.datasets.step import execute
    from studio.datasets.version import Version
    from studio.jobs.context import Context
    from studio.recipe import parse

    recipe = parse({"kind": "data", "method": "filter", "dataset": "x", "languages": ["en"], "min_chars": CHARS[0],
                    "max_chars": CHARS[1]})
    cls = registry.method("data", "filter")
    return {"filter step": lambda: execute(cls, recipe, Version(folder), folder.with_name("out"),
                                           Context(folder.with_name("r2")))}


def rewrite(folder: Path) -> dict[str, Callable[[], Any]]:
    """pyarrow alone: the same rows read, filtered and written."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    def run() -> None:
        with pq.ParquetFile(folder / "train.parquet") as file, pq.ParquetWriter(
                folder.with_name("out.parquet"), file.schema_arrow, compression="zstd", compression_level=3) as out:
            for batch in file.iter_batches(4096, use_threads=False):
                chars = batch.column("chars")
                keep = pc.and_(pc.equal(batch.column("lang"), "en"), pc.and_(pc.greater_equal(chars, CHARS[0]),
                                                                           pc.less_equal(chars, CHARS[1])))
                out.write_batch(batch.filter(keep))

    return {"rewrite": run}


def _child(side: str, folder: str) -> None:
    import psutil

    tasks = globals()[side](Path(folder))
    before, took = psutil.Process().memory_info().rss, {}
    for name, task in tasks.items():
        began = time.process_time()
        task()
        took[name] = 1000 * (time.process_time() - began)
    peak = int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) << 10
    print(json.dumps({"took": took, "before": before >> 20, "peak": peak >> 20}))


def measured(side: str, folder: Path) -> dict[str, Any]:
    env = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false",
                        "STUDIO_HOME": str(folder.parent / "home")}
    done = subprocess.run([sys.executable, "-m", "tests.benchmarks.data_table", side, str(folder)], env=env,
                          capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


TITLES = {"first page": "first page of 1,000,000 rows", "filter": "filter by language and length",
          "search": "search a text", "regex": "search a regular expression", "sort": "sort by score",
          "deep": f"page at row {DEEP:,}",
          "deep sorted": f"page at row {DEEP:,}, sorted", "search again": "next page of the search",
          "menus (facts)": "values of the menus", "counts of menus": "counts of the menus",
          "diff": "diff of 1 M with 1 M rows", "diff, next page": "next page of the diff"}


def rows():
    """Yield (what, measured, aim)."""
    with tempfile.TemporaryDirectory(prefix="bench-table-") as home:
        folder = Path(home) / "a"
        generate(folder)
        generate(folder.with_name("b"), 100)
        yield "file of 1,000,000 rows", f"{(folder / 'train.parquet').stat().st_size / 1e6:.0f} MB", ""
        found = {side: measured(side, folder) for side in ("ours", "duckdb", "pyarrow")}
        aims = {"first page": "100 ms", "filter": "500 ms", "deep": "100 ms", "search": "3000 ms", "sort": "500 ms"}
        for name, took in found["ours"]["took"].items():
            alone = ", ".join(f"{side} {found[side]['took'][name]:.0f}" for side in ("duckdb", "pyarrow")
                              if name in found[side]["took"])
            yield f"{TITLES[name]}" + (f" ({alone} ms alone)" if alone else ""), f"{took:.0f} ms", aims.get(name, "")
        for side, made in found.items():
            yield f"peak memory: {side} (before the first question {made['before']})", f"{made['peak']} MB", ""
        for side, alone, name, title in (("statistics", "tokenizers", "statistics", "statistics of 1,000,000 rows"),
                                         ("step", "rewrite", "filter step", "filter step over 1,000,000 rows")):
            made, other = measured(side, folder), measured(alone, folder)
            seconds = made["took"][name] / 1000
            yield title, f"{seconds:.1f} s", ""
            yield "  rows a second; peak memory", f"{ROWS / seconds:,.0f}; {made['peak']} MB", ""
            (what, took), = other["took"].items()
            yield f"  {alone} alone ({what})", f"{took / 1000:.1f} s; {other['peak']} MB", ""


if __name__ == "__main__":
    if len(sys.argv) == 3:
        _child(*sys.argv[1:])
    else:
        for row in rows():
            print(*row, sep="  |  ", flush=True)
