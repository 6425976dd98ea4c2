"""Checks what a person changes before it is written down: the rows are there, and can be trained on afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from studio.datasets.edits import LONGEST, MOST_OPS, OPS
from studio.datasets.version import dump
from studio.errors import StudioError

if TYPE_CHECKING:
    from studio.datasets.table import Table

MOST_TEXT = 16 << 20  # characters of a row
ROLES = ("system", "user", "assistant", "tool")
_TEXTS = ("prompt", "completion", "chosen", "rejected")
_SHAPES = {"messages": {"messages"}, "text": {"text"}, "prompt_completion": {"prompt", "completion"},
           "preference": {"prompt", "chosen", "rejected"}, "rated": {"prompt", "completion", "label"}}
_MORE = {"tools", "contexts", "comment", "tags"}


def checked(table: Table, split: Any, ops: Any) -> list[dict[str, Any]]:
    """Actions as the log keeps them: with the id of each row, and rewritten answers as whole rows.

    Raises:
        StudioError: naming what is wrong; ``field`` is ``pos``, ``op``, ``row``, ``text``, ``key`` or ``value``.
    """
    if not isinstance(ops, list) or not ops or len(ops) > MOST_OPS or not all(isinstance(op, dict) for op in ops):
        raise StudioError(f"An edit is a list of up to {MOST_OPS:,} actions.", "", "op")
    if split not in table.version.splits:
        raise StudioError("Only rows of a split can be changed; what was left out stays as it is.",
                          f"This dataset has {', '.join(table.version.splits)}.", "split")
    total = table.count(split)
    for op in ops:
        pos = op.get("pos")
        if not isinstance(pos, int) or isinstance(pos, bool) or not 0 <= pos < total:
            raise StudioError(f"There is no row {pos!r:.40} in '{split}'; it has {total:,}.",
                              "Open the dataset again.", "pos")
        if op.get("op") not in OPS:
            raise StudioError(f"There is no action '{op.get('op')!s:.40}'.", f"Known: {', '.join(OPS)}.", "op")
    stored = dict(table.items(split, sorted({op["pos"] for op in ops})))
    marks = table.marks(split)
    rows: dict[int, dict[str, Any]] = {}  # as they stand after the actions before
    made = []
    for op in ops:
        pos, word = op["pos"], op["op"]
        one: dict[str, Any] = {"op": word, "pos": pos, "id": stored[pos].id}
        if word in ("set", "rewrite"):
            if word == "rewrite" and "row" not in op:
                mark = marks.get(pos)
                before = rows.get(pos) or (mark.row if mark else None) or stored[pos].row
                op = {**op, "row": rewritten(before, op.get("text"))}
            one["row"] = rows[pos] = checked_row(op.get("row"))
        elif word == "note":
            one["text"] = _text(op.get("text", ""), "text")
        elif word == "tag":
            one |= {"key": _text(op.get("key"), "key"), "value": None if op.get("value") is None
                    else _text(str(op["value"]), "value")}
            if not one["key"].strip():
                raise StudioError("A tag needs a name.", "Type one.", "key")
        elif word == "clear" and op.get("key"):
            if op["key"] not in ("row", "review", "note", "tags"):
                raise StudioError("That part of an edit is not known.", "Known: row, review, note, tags.", "key")
            one["key"] = op["key"]
        made.append(one)
    return made


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or len(value) > LONGEST:
        raise StudioError(f"This is a text of up to {LONGEST:,} characters.", "", name)
    return value


def rewritten(row: dict[str, Any], text: Any) -> dict[str, Any]:
    """A row with its last answer replaced (the better one of a pair).

    Raises:
        StudioError: an empty text, or a row that has no answer.
    """
    if not isinstance(text, str) or not text.strip():
        raise StudioError("The new answer is empty.", "Type it, or drop the row.", "text")
    if "messages" in row:
        turns = list(row["messages"])
        last = max((i for i, turn in enumerate(turns) if turn["role"] == "assistant"), default=None)
        if last is None:
            raise StudioError("This conversation has no answer to rewrite.", "Edit the row instead.", "text")
        turns[last] = {**turns[last], "content": text}
        return row | {"messages": turns}
    key = next(key for key in ("completion", "chosen", "text") if key in row)
    value = row[key]
    if isinstance(value, list):
        return row | {key: [*value[:-1], {**value[-1], "content": text}]}
    return row | {key: text}


def checked_row(row: Any) -> dict[str, Any]:
    """A canonical row that can be stored.

    Raises:
        StudioError: with ``field="row"``, saying what is missing.
    """
    def refuse(message: str, hint: str = "") -> StudioError:
        return StudioError(message, hint, "row")

    if not isinstance(row, dict) or not row:
        raise refuse("A row is a table of fields.", "Write it as {\"messages\": [...]}, say.")
    keys = set(row) - _MORE
    if keys not in _SHAPES.values():
        shapes = "; ".join(" + ".join(sorted(names)) for names in _SHAPES.values())
        raise refuse(f"A row with {', '.join(sorted(map(str, row)))[:200]} is none of the known shapes.",
                     f"They are: {shapes}.")
    if "text" in row and (not isinstance(row["text"], str) or not row["text"].strip()):
        raise refuse("The text is empty.", "Type it, or delete the row.")
    if "messages" in row:
        _turns(row["messages"], "messages", refuse)
        if not any(turn["role"] == "assistant" for turn in row["messages"]):
            raise refuse("The conversation has no answer.", "Add a message of the assistant.")
    for key in _TEXTS:
        if key in row:
            value = row[key]
            if isinstance(value, list):
                _turns(value, key, refuse)
            elif not isinstance(value, str) or not value.strip():
                raise refuse(f"'{key}' is empty.", "Type it, or delete the row.")
    if "rejected" in row and row["rejected"] == row["chosen"]:
        raise refuse("The better and the worse answer are the same.", "Change one of them, or delete the row.")
    if "label" in row and not isinstance(row["label"], bool):
        raise refuse("The mark 'label' is true or false.")
    if "tags" in row and not (isinstance(row["tags"], dict) and all(
            isinstance(k, str) and isinstance(v, str | int | float | bool) for k, v in row["tags"].items())):
        raise refuse("'tags' is a table of words and values.")
    for key, kind in (("contexts", list), ("tools", list), ("comment", str)):
        if key in row and not isinstance(row[key], kind):
            raise refuse(f"'{key}' is {'a list' if kind is list else 'a text'}.")
    if len(dump(row)) > MOST_TEXT:
        raise refuse(f"A row is at most {MOST_TEXT >> 20} million characters.", "Shorten it.")
    return row


def _turns(value: Any, key: str, refuse: Any) -> None:
    if not isinstance(value, list) or not value:
        raise refuse(f"'{key}' has no messages.", "Add one.")
    for number, turn in enumerate(value, 1):
        where = f"Message {number} of '{key}'"
        if not isinstance(turn, dict) or turn.get("role") not in ROLES:
            raise refuse(f"{where} has no role.", f"Roles are {', '.join(ROLES)}.")
        if not isinstance(turn.get("content"), str):
            raise refuse(f"{where} has no text.", "Type it.")
        if turn["role"] == "assistant" and not turn["content"].strip() and not turn.get("tool_calls"):
            raise refuse(f"{where} is an empty answer.", "Type it, or delete the row.")
