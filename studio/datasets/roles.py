"""Which column plays which role: names people use, and how a format is recognised from a sample of rows."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from studio.datasets.cells import parsed
from studio.datasets.rows import names_of
from studio.errors import StudioError

Row = dict[str, Any]

FORMATS = {
    "messages": "Chats (messages)", "sharegpt": "Chats (ShareGPT)", "alpaca": "Instructions (Alpaca)",
    "prompt_completion": "Prompts and completions", "text": "Plain text",
    "preference": "Preference pairs", "rated": "Rated answers",
}
# Role -> must be there. In this order they are asked for in a column form.
ROLES: dict[str, dict[str, bool]] = {
    "preference": {"prompt": False, "chosen": True, "rejected": True, "system": False, "input": False, "tools": False},
    "rated": {"prompt": False, "completion": False, "label": True, "messages": False, "contexts": False,
              "comment": False,
              "system": False},
    "messages": {"messages": True, "system": False, "tools": False},
    "sharegpt": {"conversations": True, "system": False, "tools": False},
    "alpaca": {"instruction": True, "output": True, "input": False, "system": False, "history": False},
    "prompt_completion": {"prompt": True, "completion": True, "system": False},
    "text": {"text": True},
}
_PROMPTS = ("prompt", "question", "query", "instruction", "input", "user", "human", "q", "problem", "user_input",
            "request",
            "user_message", "user_prompt", "source")
_ANSWERS = ("completion", "answer", "response", "output", "assistant", "model_answer", "model_output", "generation",
            "reply",
            "bot", "gpt", "a", "solution", "target", "assistant_response", "model_response")
_CHATS = ("messages", "conversations", "conversation", "dialogue", "dialog", "chat", "turns", "history", "data")
ALIASES: dict[str, tuple[str, ...]] = {
    "prompt": _PROMPTS, "completion": _ANSWERS, "output": ("output", "response", "answer", "completion", "target"),
    "instruction": ("instruction", "instructions", "task"), "input": ("input", "context"),
    "system": ("system", "system_prompt", "system_message"), "history": ("history",),
    "tools": ("tools", "functions", "available_tools"),
    "messages": _CHATS, "conversations": _CHATS,
    "text": ("text", "content", "body", "document", "story", "article", "paragraph", "passage", "sentence"),
    "chosen": ("chosen", "chosen_response", "response_chosen", "preferred", "accepted", "winner"),
    "rejected": ("rejected", "rejected_response", "response_rejected", "dispreferred", "non_preferred", "loser"),
    "label": ("label", "rating", "mark", "rated", "feedback", "thumbs", "thumb", "vote", "grade", "good", "is_good",
              "liked", "score"),
    "contexts": ("contexts", "context", "retrieved", "documents", "passages", "sources"),
    "comment": ("comment", "comments", "why", "reason", "note", "remark"),
}
GOOD = {"good", "up", "1", "+1", "true", "yes", "y", "positive", "like", "liked", "thumbs_up", "thumbsup", "thumb_up",
        "correct", "right",
        "accept", "accepted", "👍", "desirable", "pass", "ok"}
BAD = {"bad", "down", "0", "-1", "false", "no", "n", "negative", "dislike", "disliked", "thumbs_down", "thumbsdown",
       "thumb_down", "wrong",
       "incorrect", "reject", "rejected", "👎", "undesirable", "fail"}


@dataclass
class Detected:
    """What a dataset is.

    Attributes:
        format: Key of :data:`FORMATS`.
        roles: role -> column.
        evidence: Why, in sentences for a person.
        confidence: 0 to 1; 1 where the person chose the columns.
        columns: Every column seen in the sample.
        scale: For numeric ratings, (lowest, highest) seen: above the middle is good, below bad, the middle neither.
        canonical: The rows are in their canonical shape already, checked when they were stored.
        tags: Columns of rated answers that are neither question, answer, mark nor comment, e.g. role and site of the
            user.
    """

    format: str
    roles: dict[str, str]
    evidence: list[str] = field(default_factory=list)
    confidence: float = 1.0
    columns: list[str] = field(default_factory=list)
    scale: tuple[float, float] | None = None
    tags: list[str] = field(default_factory=list)
    canonical: bool = False

    @property
    def title(self) -> str:
        return FORMATS.get(self.format, "Several formats")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"title": self.title}


def detect(rows: list[Row], columns: dict[str, str] | None = None, format: str = "auto") -> Detected:
    """The format of a sample of rows.

    Args:
        rows: Some rows, at least one.
        columns: role -> column chosen by the person; they override what is found.
        format: A key of :data:`FORMATS`, or ``auto``.

    Raises:
        StudioError: no known format fits (``dataset``), or the chosen columns do not (``columns``).
    """
    names = list(dict.fromkeys(str(k) for row in rows for k in row))
    if format != "auto" and format not in FORMATS:
        raise StudioError(f"There is no dataset format '{format}'.", f"Known: {', '.join(FORMATS)}.", "columns")
    if columns:
        return _chosen(rows, names, columns, format)
    table = _Sample(rows, names)
    for kind in ROLES if format == "auto" else (format,):
        found = _FINDERS[kind](table)
        if found:
            found.columns = names
            return _complete(found, table)
    if format != "auto":
        need = [role for role, must in ROLES[format].items() if must]
        raise StudioError(f"The data is not in the format '{FORMATS[format]}': it has the columns {names_of(names)}.",
                          f"Say which column is {' and '.join(need)} under 'Columns'.", "dataset")
    raise StudioError(f"No known format fits the columns {names_of(names)}.",
                      "Say which column is what under 'Columns', e.g. prompt and completion, messages, or text.",
                      "dataset")


def _chosen(rows: list[Row], names: list[str], columns: dict[str, str], format: str) -> Detected:
    known = {role for roles in ROLES.values() for role in roles}
    for role, column in columns.items():
        if role not in known:
            raise StudioError(f"'{role}' is not a role of a column.", f"Roles: {', '.join(sorted(known))}.", "columns")
        if column not in names:
            import difflib

            near = difflib.get_close_matches(column, names, n=1)
            hint = f"Did you mean '{near[0]}'?" if near else f"The data has {names_of(names)}."
            raise StudioError(f"There is no column '{column}' in the data.", hint, "columns")
    table = _Sample(rows, names)
    chat = columns.get("messages") or columns.get("conversations")
    if chat and set(columns) <= {"messages", "conversations", "system", "tools"}:
        kind = _dialect(rows, chat)
        if kind is None:
            raise StudioError(f"The column '{chat}' holds no conversations.",
                              "A conversation is a list of messages with role and content.", "columns")
        role = "conversations" if kind == "sharegpt" else "messages"
        columns = {role if key in ("messages", "conversations") else key: column for key, column in columns.items()}
    kinds = [kind for kind, roles in ROLES.items() if set(columns) <= set(roles) and format in ("auto", kind)]
    fits = [kind for kind in kinds if _needed(kind, columns) <= set(columns)]
    if not fits and (found := _merged(rows, columns, format)):
        return found
    if not fits:  # the person named some: the rest by their names
        for kind in kinds:
            made = dict(columns)
            for role in sorted(_needed(kind, columns) - set(columns)):
                if column := table.find(role, tuple(made.values())):
                    made[role] = column
            if _needed(kind, columns) <= set(made):
                columns, fits = made, [kind]
                break
    if not fits:
        raise StudioError(f"A role is missing beside {names_of(columns)}: alone they make no format.",
                          "Choose prompt + completion, instruction + output, messages, text, or chosen + rejected.",
                          "columns")
    found = Detected(fits[0], dict(columns), ["You chose the columns."], 1.0, names)
    return _complete(found, table)


def _merged(rows: list[Row], columns: dict[str, str], format: str) -> Detected | None:
    """What is detected without the person's columns, with these put in, if they are roles of that format."""
    try:
        found = detect(rows, None, format)
    except StudioError:
        return None
    if not set(columns) <= set(ROLES[found.format]):
        return None
    found.roles, found.confidence = found.roles | columns, 1.0
    found.evidence.insert(0, "You chose some of the columns.")
    return found


def _needed(kind: str, given: dict[str, str]) -> set[str]:
    """Roles without which a format is none; rated answers need a whole chat, or a question and an answer."""
    needed = {role for role, must in ROLES[kind].items() if must}
    return needed | {"prompt", "completion"} if kind == "rated" and "messages" not in given else needed


class _Sample:
    """A sample of rows with questions about its columns."""

    def __init__(self, rows: list[Row], names: list[str]):
        self.rows, self.names = rows, names
        self._plain: dict[str, str] = {}
        for name in names:
            self._plain.setdefault(re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_"), name)

    def find(self, role: str, but: tuple[str | None, ...] = ()) -> str | None:
        """The first column, by the order of the aliases, that may play ``role``."""
        return next((self._plain[alias] for alias in ALIASES[role] if alias in self._plain
                     and self._plain[alias] not in but), None)

    def values(self, name: str) -> list[Any]:
        return [row[name] for row in self.rows if row.get(name) not in (None, "")]

    def roles(self, kind: str, **given: str | None) -> dict[str, str]:
        """The given roles and those optional ones that the columns' names show."""
        made = {role: column for role, column in given.items() if column}
        for role, must in ROLES[kind].items():
            if not must and role not in made and role != "messages" and \
                    (column := self.find(role, tuple(made.values()))):
                made[role] = column
        return made


def _turns(value: Any) -> str | None:
    """Dialect of a conversation in a cell: ``messages`` | ``sharegpt`` | ``turns`` (texts in turn); else ``None``."""
    value = parsed(value)
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list) or not value:
        return None
    if all(isinstance(item, dict) for item in value):
        first = value[0]
        if "role" in first and ("content" in first or "tool_calls" in first):
            return "messages"
        if ("from" in first or "speaker" in first or "role" in first or "user" in first) and \
                ("value" in first or "text" in first or "message" in first or "content" in first):
            return "sharegpt"
        return None
    return "turns" if len(value) > 1 and all(isinstance(item, str) for item in value) else None


def _dialect(rows: list[Row], column: str) -> str | None:
    found = Counter(_turns(row.get(column)) for row in rows[:200] if row.get(column))
    found.pop(None, None)
    word = found.most_common(1)[0][0] if found else None
    return "sharegpt" if word == "turns" else word


def _chat_column(table: _Sample) -> tuple[str, str] | None:
    """(column, dialect) of the conversation, the columns with a usual name first."""
    usual = [table._plain[a] for a in _CHATS if a in table._plain]
    asked = table.find("prompt")
    parts = {asked, table.find("completion", (asked,))}  # a prompt written as messages is only a part of the chat
    others = [] if None in parts else [n for n in table.names if n in parts]
    for name in dict.fromkeys([*usual, *(n for n in table.names if n not in others)]):
        kinds = Counter(_turns(v) for v in table.values(name)[:100])
        total = sum(kinds.values())
        for kind in ("messages", "sharegpt"):
            if total and kinds[kind] >= 0.5 * total:
                return name, kind
        if total and name in usual and name != "history" and kinds["turns"] >= 0.9 * total:
            return name, "sharegpt"
    return None


def _find_preference(table: _Sample) -> Detected | None:
    chosen, rejected = table.find("chosen"), table.find("rejected")
    if not chosen or not rejected:
        return None
    asked = table.find("prompt", (chosen, rejected)) or table.find("messages", (chosen, rejected))
    made = table.roles("preference", chosen=chosen, rejected=rejected, prompt=asked)
    how = f"the prompt is in '{asked}'" if asked else "the prompt is what both begin with"
    return Detected("preference", made,
                    [f"Columns '{chosen}' and '{rejected}' hold the better and the worse answer; {how}."], 0.95)


def _find_rated(table: _Sample) -> Detected | None:
    label = table.find("label")
    if not label or not table.values(label):
        return None
    marks = [mark(v, (0.0, 1.0)) for v in table.values(label)]
    scale = _scale(table.values(label))
    if scale is None and sum(m is not None for m in marks) < 0.9 * len(marks):
        return None
    numbered = scale is not None
    if numbered and table.find("instruction"):
        return None  # a quality score beside instructions sorts the rows, it does not rate an answer given
    if (chat := _chat_column(table)) and not numbered and not table.find("completion", (label,)):
        return Detected("rated", table.roles("rated", messages=chat[0], label=label),
                        [f"Conversations in '{chat[0]}' with a mark in '{label}'."], 0.8)
    prompt = table.find("prompt", (label,))
    answer = table.find("completion", (label, prompt))
    if not prompt or not answer or chat:
        return None
    made = table.roles("rated", prompt=prompt, completion=answer, label=label)
    said = f"Question in '{prompt}', answer in '{answer}', mark in '{label}'"
    said += f", contexts in '{made['contexts']}'." if "contexts" in made else "."
    return Detected("rated", made, [said], 0.85)


def _scale(values: list[Any]) -> tuple[float, float] | None:
    """Lowest and highest of a numeric rating with few steps that is more than yes and no."""
    numbers = []
    for value in values:
        try:
            numbers.append(float(value))
        except (TypeError, ValueError):
            return None
    steps = set(numbers)
    if any(isinstance(v, bool) for v in values) or not 2 <= len(steps) <= 11:
        return None
    if steps <= {0.0, 1.0} or steps <= {-1.0, 1.0}:
        return None
    low, high = min(steps), max(steps)
    return (1.0, 5.0) if steps <= {1.0, 2.0, 3.0, 4.0, 5.0} else (low, high)


def mark(value: Any, scale: tuple[float, float] | None = None) -> bool | None:
    """A rating as good (True), bad (False), or neither (None)."""
    if isinstance(value, bool):
        return value
    if scale is not None and scale != (0.0, 1.0):
        try:
            number, middle = float(value), sum(scale) / 2
        except (TypeError, ValueError):
            return None
        return None if number == middle or number != number else number > middle
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    word = str(value).strip().lower().replace(" ", "_")
    return True if word in GOOD else False if word in BAD else None


def _find_chat(table: _Sample, wanted: str) -> Detected | None:
    chat = _chat_column(table)
    if not chat or chat[1] != wanted:
        return None
    name, kind = chat
    role = "messages" if kind == "messages" else "conversations"
    kinds = Counter(_turns(v) for v in table.values(name)[:100])
    if kinds["turns"] > kinds["sharegpt"]:
        said = f"'{name}' holds lists of texts, read as user and assistant in turn."
    else:
        said = f"'{name}' holds conversations with {'role and content' if kind == 'messages' else 'from and value'}."
    made = table.roles(kind, **{role: name})
    if any(isinstance(v, str) for v in table.values(name)[:20]):
        said += " They are written as text and are parsed."
    return Detected(kind, made, [said], 0.98)


def _find_alpaca(table: _Sample) -> Detected | None:
    instruction = table.find("instruction")
    output = table.find("output", (instruction,))
    if not instruction or not output:
        return None
    made = table.roles("alpaca", instruction=instruction, output=output)
    return Detected("alpaca", made, [f"Columns '{instruction}' and '{output}'"
                                     + (f" with '{made['input']}' beside them." if "input" in made else ".")], 0.95)


def _find_prompt_completion(table: _Sample) -> Detected | None:
    prompt = table.find("prompt")
    answer = table.find("completion", (prompt,))
    if not prompt or not answer:
        return None
    exact = {prompt, answer} == {"prompt", "completion"}
    return Detected("prompt_completion", table.roles("prompt_completion", prompt=prompt, completion=answer),
                    [f"'{prompt}' is the question and '{answer}' the answer."], 0.98 if exact else 0.85)


def _find_text(table: _Sample) -> Detected | None:
    if name := table.find("text"):
        return Detected("text", {"text": name}, [f"Column '{name}' holds plain text."],
                        0.9 if len(table.names) == 1 else 0.7)
    words = [n for n in table.names if table.values(n)
             and all(isinstance(v, str) and not _number(v) for v in table.values(n))]
    if len(table.names) == 1 and words:
        return Detected("text", {"text": words[0]}, [f"The only column, '{words[0]}', holds text."], 0.5)
    return None


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _complete(found: Detected, table: _Sample) -> Detected:
    """Adds what follows from the values: the scale of marks, tags, tools."""
    if found.format == "rated":
        values = table.values(found.roles["label"])
        found.scale = _scale(values)
        found.tags = [n for n in found.columns if n not in found.roles.values()]
        if found.scale:
            low, high = found.scale
            found.evidence.append(f"Marks from {low:g} to {high:g}: above {(low + high) / 2:g} counts as good, below "
                                  "as bad.")
        else:
            goods = sum(mark(v) is True for v in values)
            found.evidence.append(f"{goods} of {len(values)} looked at are marked good.")
        if found.tags:
            found.evidence.append(f"Tags: {names_of(found.tags)}.")
    if found.format in ("messages", "sharegpt") and ("tools" in found.roles or any(
            isinstance(m, dict) and m.get("tool_calls") for row in table.rows[:100]
            for m in _list(parsed(row.get(found.roles.get("messages", "")))))):
        found.evidence.append("Tool calls are among them.")
    return found


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


_FINDERS = {"preference": _find_preference, "rated": _find_rated, "messages": lambda t: _find_chat(t, "messages"),
            "sharegpt": lambda t: _find_chat(t, "sharegpt"), "alpaca": _find_alpaca,
            "prompt_completion": _find_prompt_completion, "text": _find_text}
