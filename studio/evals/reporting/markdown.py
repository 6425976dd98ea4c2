"""A report as a Markdown model card with the Hub's front matter. Fields: https://huggingface.co/docs/hub/model-cards#model-card-metadata"""

from __future__ import annotations

import re
from typing import Any

import yaml

from studio.evals.reporting import blocks

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~$&!])")


def page(front: dict[str, Any], title: str, about: list[str], sections: list[blocks.Section], footer: str) -> str:
    """The whole file. Pictures are left to the other two; the numbers behind them stand in tables."""
    lines = ["---", yaml.safe_dump(front, allow_unicode=True, sort_keys=False).rstrip(), "---", "", f"# {text(title)}", ""]
    lines += [f"{text(line)}  " for line in about] + [""]
    for section in sections:
        lines += [f"{'#' * (section.level + 1)} {text(section.title)}", ""]
        for block in section.blocks:
            lines += [*_block(block), ""]
    return "\n".join([*lines, "---", "", text(footer), ""])


def text(value: str) -> str:
    """One line that means itself: nothing in it is markup, and nothing is HTML."""
    return _SPECIAL.sub(r"\\\1", " ".join(value.split()))


def _block(block: Any) -> list[str]:
    match block:
        case blocks.Text():
            return [text(block.text)]
        case blocks.Points():
            return [f"- {text(line)}" for line in block.lines]
        case blocks.Table():
            rule = ["---:" if n in block.numbers else "---" for n in range(len(block.head))]
            rows = [[_cell(one) for one in row] for row in block.rows]
            return [f"| {' | '.join(row)} |" for row in [[text(one) for one in block.head], rule, *rows]]
        case blocks.Answers():
            lines = [text(block.note), ""] if block.note else []
            lines += fenced(block.prompt)
            lines += ["", "Right answer:", "", *fenced(block.target)] if block.target else []
            for label, said, right in block.answers:
                mark = {True: " (right)", False: " (wrong)", None: ""}[right]
                lines += ["", f"**{text(label)}**{mark}", "", *fenced(said or "–")]
            return lines
        case blocks.Code():
            return [f"**{text(block.title)}**", "", *fenced(block.text)]
        case blocks.Chart():
            return []
    raise TypeError(type(block).__name__)


def _cell(value: str | blocks.Cell) -> str:
    one = blocks.cell(value)
    return f"**{text(one.text)}**" if one.tone in ("best", "bad") and one.text.strip() else text(one.text)


def fenced(value: str) -> list[str]:
    """Text as it is, behind a fence that is longer than any in it."""
    longest = max((len(run) for run in re.findall(r"`+", value)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}text", value, fence]
