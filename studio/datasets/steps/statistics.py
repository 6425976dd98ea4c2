"""Statistics of a dataset: lengths in tokens and characters, turns, languages, roles, duplicates, vocabulary, tags."""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from studio.datasets.report import Report
from studio.datasets.step import StepRecipe, report
from studio.datasets.version import Version
from studio.errors import StudioError
from studio.recipe import field

if TYPE_CHECKING:
    from studio.jobs.context import Context

BINS = 40
TOP = 50
PERCENTILES = (5, 25, 50, 75, 95, 99)
_CHUNK = 512  # rows tokenised at once
_WORDS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_]+(?:['’][^\W\d_]+)*")

_ROLES = "array_to_string(json_extract_string(row, '$.{0}[*].role'), '>')"
_SIDE = f"CASE json_type(row, '$.{{0}}') WHEN 'ARRAY' THEN {_ROLES} ELSE '{{1}}' END"
_SHAPE = """CASE WHEN starts_with(row, '{"messages"') THEN 'messages' WHEN starts_with(row, '{"text"') THEN 'text'
 WHEN json_exists(row, '$.chosen') THEN 'preference' WHEN json_exists(row, '$.label') THEN 'rated'
 WHEN json_exists(row, '$.messages') THEN 'messages' WHEN json_exists(row, '$.text') THEN 'text'
 ELSE 'prompt_completion' END"""
_PATTERN = f"""CASE shape WHEN 'messages' THEN {_ROLES.format('messages')} WHEN 'text' THEN 'text'
 ELSE concat({_SIDE.format('prompt', 'user')}, '>',
 CASE shape WHEN 'preference' THEN {_SIDE.format('chosen', 'assistant')}
 ELSE {_SIDE.format('completion', 'assistant')} END) END"""


class StatisticsRecipe(StepRecipe):
    method = "statistics"

    model: str = field("starter", "Tokenizer of", "The model whose tokenizer and chat template count the tokens. Only "
                       "its small files are read.", widget="model", max_length=1000)
    max_length: int = field(0, "Context limit", "Rows longer than this are counted as too long. 0 = what the model "
                            "can take.", unit="tokens", ge=0, le=10_000_000)
    look_at: int = field(50_000, "Rows tokenised", "Tokens and words are counted in so many rows, evenly spread; "
                         "everything else in all rows. 0 = all.", unit="rows", ge=0, le=1_000_000_000)


class Statistics(Report):
    title = "Statistics"
    summary = "Lengths, turns, languages, roles, duplicates, vocabulary and tags of a dataset, as plots."
    Recipe = StatisticsRecipe

    @classmethod
    def check(cls, recipe: StatisticsRecipe) -> None:
        from studio.library import refs

        super().check(recipe)
        refs.resolve_model(recipe.model)

    @classmethod
    def work(cls, recipe: StatisticsRecipe, source: Version, ctx: Context) -> dict[str, Any]:
        from studio.datasets.token_count import Tokens, folder_of

        folder, label, context = folder_of(recipe.model)
        counter = Tokens(folder)
        limit = recipe.max_length or context
        total = sum(source.count(split) for split in source.splits)
        found = _columns(source, total, ctx)
        tokens, vocabulary = _close_look(source, counter, recipe.look_at, total, ctx)
        return found | {"tokens": {"model": label, "ref": recipe.model, "limit": limit, "template": counter.template,
                                   "unrendered": counter.unrendered, **_token_figures(tokens, total, limit)},
                        "vocabulary": vocabulary}

    @classmethod
    def headline(cls, found: dict[str, Any]) -> dict[str, Any]:
        return {"rows": found["rows"], "tokens": found["tokens"]["total"], "over": found["tokens"]["over"],
                "duplicates": found["duplicates"]["exact"]}


def _columns(source: Version, total: int, ctx: Context) -> dict[str, Any]:
    """What DuckDB counts over all rows."""
    from studio.datasets.duck import connect, escaped

    temp = ctx.run_dir / "temp"
    temp.mkdir(exist_ok=True)
    with connect(temp=temp) as con:
        names = "id, row, source, chars, turns, lang, score, label, tags"
        files = [escaped(source.file(split)) for split in source.splits]
        rows = "(" + " UNION ALL ".join([f"SELECT {names} FROM read_parquet(?)"] * len(files)) + ")"

        def ask(sql: str) -> list[tuple[Any, ...]]:
            if ctx.stop_requested:
                from studio.datasets.step import Stopped

                raise Stopped
            return con.execute(sql.replace("@rows", rows), files).fetchall()

        def tally(column: str, top: int = TOP) -> dict[str, int]:
            return {str(v) if v not in (None, "") else "none": n for v, n in ask(
                f"SELECT {column}, count(*) AS n FROM @rows GROUP BY 1 ORDER BY n DESC, 1 LIMIT {top}")}

        distinct = ask("SELECT count(DISTINCT hash(row)) FROM @rows")[0][0]
        shapes, patterns = Counter(), Counter()
        for shape, pattern, n in ask(f"SELECT shape, {_PATTERN} AS pattern, count(*) FROM "
                                     f"(SELECT row, {_SHAPE} AS shape FROM @rows) GROUP BY 1, 2"):
            shapes[shape] += n
            patterns[folded(pattern)] += n
        tags: dict[str, dict[str, dict[str, int]]] = {}
        for key, value, good, bad, n in ask(
                "SELECT t.key, t.value, count(*) FILTER (WHERE label = 'good'), "
                "count(*) FILTER (WHERE label = 'bad'), count(*) AS n FROM "
                "(SELECT unnest(map_entries(tags)) AS t, label FROM @rows WHERE tags IS NOT NULL) "
                f"GROUP BY 1, 2 QUALIFY row_number() OVER (PARTITION BY t.key ORDER BY n DESC, t.value) <= {TOP} "
                "ORDER BY 1, n DESC, 2"):
            tags.setdefault(key, {})[value] = {"good": good, "bad": bad, "none": n - good - bad}
        labels = tally("label")
        scores = _histogram(ask, "score") if ask("SELECT count(score) FROM @rows")[0][0] else None
        return {"rows": total, "splits": {split: source.count(split) for split in source.splits},
                "chars": _histogram(ask, "chars"), "scores": scores,
                "turns": dict(sorted(tally("turns", 200).items(), key=lambda pair: int(pair[0]))),
                "languages": tally("lang"), "role_patterns": dict(patterns.most_common(TOP)),
                "duplicates": {"exact": total - distinct, "share": round((total - distinct) / max(1, total), 6)},
                "labels": labels if set(labels) - {"none"} else {}, "tags": tags, "sources": tally("source"),
                "formats": dict(shapes)}


def _histogram(ask: Any, column: str) -> dict[str, Any]:
    """Equal bins up to where nearly all rows end, and one for the rest."""
    low, high, most = ask(f"SELECT min({column}), max({column}), quantile_disc({column}, 0.995) FROM @rows")[0]
    step = step_of(min(low, 0), most, whole=isinstance(most, int))
    first = math.floor(min(low, 0) / step) * step
    counts = dict(ask(f"SELECT least(floor(({column} - {first!r}) / {step!r}), {BINS})::INTEGER, count(*) FROM @rows "
                      f"WHERE {column} IS NOT NULL GROUP BY 1"))
    marks = ", ".join(f"{p / 100}" for p in PERCENTILES)
    values = ask(f"SELECT quantile_disc({column}, [{marks}]) FROM @rows")[0][0]
    mean = ask(f"SELECT avg({column}) FROM @rows")[0][0]
    return _bins(counts, first, step, high) | {
        "min": low, "max": high, "mean": round(mean, 3),
        "percentiles": {str(p): v for p, v in zip(PERCENTILES, values, strict=True)}}


def _bins(counts: dict[int, int], first: float, step: float, high: float) -> dict[str, list]:
    last = max(counts, default=0)
    edges = [round(first + step * i, 6) for i in range(min(last, BINS - 1) + 2)]
    if last == BINS:
        edges.append(max(high, edges[-1]))
    return {"edges": edges, "counts": [counts.get(i, 0) for i in range(len(edges) - 1)]}


def step_of(low: float, high: float, whole: bool = True) -> float:
    """Width of a bin: 1, 2 or 5 times a power of ten, so that :data:`BINS` reach from ``low`` to ``high``."""
    rough = max((high - low) / BINS, 1e-9 if not whole else 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power * BINS > high - low)
    return max(1, round(step)) if whole else step


def folded(pattern: str, most: int = 12) -> str:
    """Roles in order, a repeated question and answer written once: ``system>(user>assistant)+``."""
    roles = pattern.split(">")
    begin = 1 if roles[0] == "system" else 0
    rest = roles[begin:]
    for size in range(1, len(rest) // 2 + 1):
        if len(rest) % size == 0 and rest == rest[:size] * (len(rest) // size):
            return ">".join([*roles[:begin], f"({'>'.join(rest[:size])})+"])
    return pattern if len(roles) <= most else ">".join(roles[:most]) + ">…"


def _close_look(source: Version, counter: Any, look_at: int, total: int,
                ctx: Context) -> tuple[list[int], dict[str, Any]]:
    """Tokens a row, and the vocabulary, of evenly spread rows."""
    import orjson

    wanted = min(look_at or total, total)
    tokens: list[int] = []
    words: Counter[str] = Counter()
    growth: list[list[int]] = []
    began, spoken, mark = time.monotonic(), 0, 1000.0

    def take(rows: list[dict[str, Any]]) -> None:
        nonlocal spoken, mark
        tokens.extend(counter.count(rows))
        for row in rows:
            found = _WORDS.findall(_spoken(row).lower())
            words.update(found)
            spoken += len(found)
            if spoken >= mark:
                growth.append([spoken, len(words)])
                mark = spoken * 1.3
        report(ctx, len(tokens), wanted, began)

    rows: list[dict[str, Any]] = []
    for text in _spread(source, wanted, total):
        rows.append(orjson.loads(text))
        if len(rows) == _CHUNK:
            take(rows)
            rows = []
    if rows:
        take(rows)
    if not growth or growth[-1][0] != spoken:
        growth.append([spoken, len(words)])
    return tokens, {"rows": wanted, "words": spoken, "distinct": len(words), "growth": growth,
                    "top": [[word, n] for word, n in words.most_common(TOP)]}


def _spoken(row: dict[str, Any]) -> str:
    from studio.datasets.convert import turns_of

    return "\n".join(str(turn.get("content") or "") for turn in turns_of(row))


def _spread(source: Version, wanted: int, total: int) -> Any:
    """``wanted`` stored rows out of all, evenly spread."""
    if not wanted:
        raise StudioError("This dataset has no rows.", "Choose another.", "dataset")
    passed, next_one = 0, 0
    for split in source.splits:
        for batch in source.batches(split, ["row"]):
            column = batch.column(0)
            chosen = []
            while next_one < wanted and (place := next_one * total // wanted) < passed + len(column):
                chosen.append(place - passed)
                next_one += 1
            if chosen:
                yield from column.take(_array(chosen)).to_pylist()
            passed += len(column)


def _array(places: list[int]) -> Any:
    import pyarrow as pa

    return pa.array(places, pa.int32())


def _token_figures(tokens: list[int], total: int, limit: int | None) -> dict[str, Any]:
    """Figures of all rows from the counted ones; ``estimated`` says that not all were counted."""
    ordered, n = sorted(tokens), len(tokens)
    scale = total / n
    over = sum(t > limit for t in ordered) if limit else 0
    top = ordered[min(n - 1, int(0.995 * n))]
    step = step_of(0, top)
    counts = Counter(min(t // step, BINS) for t in ordered)
    return {"histogram": _bins(counts, 0, step, ordered[-1]), "rows": n, "estimated": n < total,
            "over": round(over * scale), "share_over": round(over / n, 6), "total": round(sum(tokens) * scale),
            "mean": round(sum(tokens) / n, 2), "min": ordered[0], "max": ordered[-1],
            "percentiles": {str(p): ordered[min(n - 1, int(p / 100 * n))] for p in PERCENTILES}}
