"""The texts that weights are fitted to, and others to compare on. Rows become text as the model itself would read them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from studio.errors import StudioError

LOOKED_AT = 20_000  # rows read at most; what is not chosen by then is not chosen


def rows(recipe: Any) -> Iterator[dict[str, Any]]:
    """The usable rows of the recipe's dataset, in its order.

    Raises:
        StudioError: in the field ``dataset``: none chosen, unreadable, or no row is left.
    """
    from studio.datasets import formats

    if not recipe.dataset:
        raise StudioError("No calibration texts are chosen.", "Choose texts like those the model will meet; the shipped "
                          "set 'Calibration texts' serves any model.", "dataset")
    return islice(iter(formats.load_rows(recipe.dataset, recipe.columns or None)), LOOKED_AT)


def written(row: dict[str, Any], tokenizer: Any = None) -> str:
    """A row as one text: a chat in the template of the tokenizer, or its turns one below the other where it has none."""
    from studio.datasets.convert import turns_of

    turns = turns_of(row)
    if "text" not in row and tokenizer is not None and getattr(tokenizer, "chat_template", None):
        try:
            return tokenizer.apply_chat_template(turns, tokenize=False, tools=row.get("tools"))
        except Exception:  # a template may refuse a role: system, tool; what was said is still a text
            pass
    return "\n".join(str(turn.get("content") or "") for turn in turns)


def texts(recipe: Any, tokenizer: Any = None) -> list[str]:
    """The first ``num_calibration_samples`` texts.

    Raises:
        StudioError: see :func:`rows`.
    """
    return [written(row, tokenizer) for row in islice(rows(recipe), recipe.num_calibration_samples)]


def held_rows(recipe: Any, count: int = 64) -> list[dict[str, Any]]:
    """Up to ``count`` rows that nothing is fitted to: those behind the calibration's. Of a dataset that has no more, the
    last quarter, which then serves both."""
    found = list(islice(rows(recipe), recipe.num_calibration_samples + count))
    return found[recipe.num_calibration_samples:] or found[-max(1, len(found) // 4):]


def held_out(recipe: Any, tokenizer: Any = None, count: int = 64) -> list[str]:
    """The texts of :func:`held_rows`."""
    return [written(row, tokenizer) for row in held_rows(recipe, count)]


def best_read(losses: list[float]) -> list[int]:
    """Places of the half of the texts that the source reads best, in their order.

    What a model cannot read anyway (a language it never saw) says nothing about what rounding took from it: there its
    perplexity even falls when rounding makes it less sure.
    """
    order = sorted(range(len(losses)), key=lambda place: losses[place])
    return sorted(order[:max(1, (len(order) + 1) // 2)])


def tokens(recipe: Any, tokenizer: Any, given: list[str] | None = None) -> list[list[int]]:
    """Token ids of :func:`texts` (or of the texts given), each cut at ``max_seq_length``; shorter ones than 2 are left out.

    Raises:
        StudioError: see :func:`rows`; or nothing is left.
    """
    found = [cut(recipe, tokenizer, text) for text in (texts(recipe, tokenizer) if given is None else given)]
    if not any(len(ids) > 1 for ids in found):
        raise too_short()
    return [ids for ids in found if len(ids) > 1]


def cut(recipe: Any, tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text of :func:`written`, at most ``max_seq_length``. A start token that the template wrote is not
    doubled."""
    start = getattr(tokenizer, "bos_token", None)
    has = bool(getattr(tokenizer, "chat_template", None) and start and text.startswith(start))
    return list(tokenizer(text, add_special_tokens=not has)["input_ids"][:recipe.max_seq_length])


def too_short() -> StudioError:
    return StudioError("The calibration texts are all shorter than two tokens.", "Choose a dataset with real texts.",
                       "dataset")
