"""The card of a published dataset: what it holds, how it was made, step by step, and under which licence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from studio import settings
from studio.datasets.roles import FORMATS
from studio.datasets.version import Version

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"),
         (10_000_000, "1M<n<10M"),
         (100_000_000, "10M<n<100M"), (10**15, "n>100M"))
COLUMNS = {
    "messages": "`messages`: a list of `{role, content}`; answers may have `tool_calls` (arguments as JSON text) and "
                "`reasoning_content`. `tools`: the tools offered, as JSON text.",
    "prompt_completion": "`prompt` and `completion`: texts, or lists of `{role, content}`.",
    "text": "`text`: plain text.",
    "preference": "`prompt`, `chosen` (the better answer), `rejected` (the worse one); `margin`, where known, says how much "
                  "better.",
    "reward": "`chosen` and `rejected`: whole conversations with the same questions; `margin`, where known.",
    "rated": "`prompt`, `completion`, and `label`: true for an answer marked good. `contexts`: what the answer was given from; "
             "`comment`: why it was marked so; `tags`: of the user or the place.",
}


def card(version: Version, name: str, counts: dict[str, int], license: str = "", size: int = 0, format: str = "as_is",
         with_tags: bool = False) -> str:
    """Markdown with the front matter of https://huggingface.co/docs/hub/datasets-cards.

    Args:
        counts: Split -> rows that are published.
        size: Bytes of the files.
        format: As the rows are written: see :func:`studio.datasets.export.export_rows`.
    """
    import yaml

    rows = sum(counts.values())
    languages = _languages(version)
    front: dict[str, Any] = {"license": license} if license else {}
    front |= {"language": languages} if languages else {}
    front |= {"task_categories": ["text-generation"], "tags": ["atelier"],
              "size_categories": [next(word for most, word in SIZES if rows < most)],
              "configs": [{"config_name": "default", "data_files": [
                  {"split": split, "path": f"data/{split}-*.parquet"} for split in counts]}]}
    kind = version.meta["format"] if format == "as_is" else format
    lines = [f"# {_cell(name)}", "", "| Split | Rows |", "|---|---:|",
             *(f"| {split} | {n:,} |" for split, n in counts.items()), "",
             f"{size / 1e6:,.1f} MB of Parquet. Content hash of the whole: `{version.hash}`.", "", "## Rows", "",
             f"{FORMATS.get(kind, 'Pairs for a reward model' if kind == 'reward' else 'Rows of several formats')}.",
             ""]
    shown = [COLUMNS[kind]] if kind in COLUMNS else list(COLUMNS.values())
    lines += [f"* {said}" for said in shown] + (["* `source` and `tags` of every row."] if with_tags else [])
    lines += ["", "## How it was made", "", "| | Step | Rows in | Rows out | Changed | Left out |",
              "|---|---|---:|---:|---:|---|"]
    for number, entry in enumerate(version.meta["history"], 1):
        why = "; ".join(f"{r['count']:,} {_cell(r['message'])}" for r in entry["reasons"][:5])
        lines.append(f"| {number} | {_step(entry['step'])} | {entry['rows_in']:,} | {entry['rows_out']:,} | {entry['changed']:,} | "
                     f"{why or '-'} |")
    sources = version.meta.get("sources") or {}
    if sources:
        lines += ["", "## Sources", "", *(f"* {_cell(source or 'made here')}: {n:,} rows" for source,
                                          n in list(sources.items())[:50])]
    if not license:
        lines += ["", "No licence was chosen. Ask before you use it for anything."]
    lines += ["", "Made with Atelier.", ""]
    text = _anywhere("\n".join(lines))
    return f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n\n{text}"


def _step(step: dict[str, Any]) -> str:
    """A step with the fields that were set. Prompts and lists are cut short: the card is no recipe."""
    fields = ", ".join(f"{key}: {_cell(_anywhere(str(value)))[:80]}" for key, value in step.items() if key != "method")
    return f"**{_cell(str(step.get('method', '')))}**" + (f" ({fields})" if fields else "")


def _anywhere(text: str) -> str:
    """``text`` without the places of this machine; before anything is cut, for half a path would not be known again."""
    for place, word in ((settings.home(), "workspace"), (settings.ROOT, "studio"), (Path.home(), "~")):
        text = text.replace(str(place), word)
    return text


def _cell(text: str) -> str:
    """Text that cannot break out of a table or write HTML."""
    return " ".join(str(text).replace("|", "\\|").replace("<", "&lt;").replace("`", "'").split())


def _languages(version: Version, most: int = 20_000) -> list[str]:
    """Languages of at least one row in fifty, the most frequent first."""
    from collections import Counter

    seen: Counter[str] = Counter()
    for batch in version.batches("train", ["lang"]):
        seen.update(code for code in batch.column(0).to_pylist() if code)
        if seen.total() > most:
            break
    return [code for code, n in seen.most_common(10) if n >= seen.total() / 50 and code.isalpha()
            and len(code) in (2, 3)]
