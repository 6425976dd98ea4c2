"""Which column plays which role: names people use, and how a format is recognised from a sample of rows."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from studio.datasets import dialects, thinking, verdicts
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
    "preference": {"prompt": False, "chosen": True, "rejected": True, "system": False, "input": False, "tools": False,
                   "margin": False, "score_chosen": False, "score_rejected": False, "answer_a": False,
                   "answer_b": False,
                   "winner": False, "score_a": False, "score_b": False, "answers": False, "scores": False},
    "rated": {"prompt": False, "completion": False, "label": True, "messages": False, "contexts": False,
              "comment": False,
              "system": False},
    "messages": {"messages": True, "system": False, "tools": False},
    "sharegpt": {"conversations": True, "system": False, "tools": False},
    "alpaca": {"instruction": True, "output": True, "input": False, "system": False, "history": False,
               "reasoning": False},
    "prompt_completion": {"prompt": True, "completion": True, "system": False, "reasoning": False, "tools": False},
    "text": {"text": True},
}
OTHER_ROLES = ("answer_a", "answer_b", "winner", "score_a", "score_b", "answers",
               "scores")  # never by their names alone
# A pair that is not called chosen and rejected: two answers with a verdict or with scores, or a list of answers
OTHER_PAIRS = ({"answer_a", "answer_b", "winner"}, {"answer_a", "answer_b", "score_a", "score_b"}, {"answers"})
_PROMPTS = ("prompt", "question", "query", "instruction", "input", "user", "human", "q", "problem", "user_input",
            "request",
            "user_message", "user_prompt", "user_question", "user_query", "source", "post", "problem_statement")
_ANSWERS = ("completion", "answer", "response", "output", "assistant", "model_answer", "model_output", "generation",
            "reply",
            "bot", "gpt", "a", "solution", "target", "assistant_response", "model_response", "bot_answer",
            "bot_response",
            "ai_response", "ai_answer", "assistant_answer", "assistant_message", "llm_response", "llm_answer",
            "generated_answer",
            "system_answer", "expected_output", "best_answer", "answers")
_CHATS = ("messages", "conversations", "conversation", "dialogue", "dialog", "chat", "turns", "history", "data",
          "items",
          "mapping", "dialogs", "chat_history", "trajectory")


def _sided(words: str, ends: str) -> tuple[str, ...]:
    return tuple(f"{word}{joint}{end}" for end in ends for word in words.split() for joint in ("_", ""))


_SIDES = "answer response output completion conversation human_ref candidate model_output generation"
ALIASES: dict[str, tuple[str, ...]] = {
    "prompt": _PROMPTS, "completion": _ANSWERS, "output": ("output", "response", "answer", "completion", "target"),
    "instruction": ("instruction", "instructions", "task"), "input": ("input", "context"),
    "system": ("system", "system_prompt", "system_message"), "history": ("history",),
    "tools": ("tools", "functions", "available_tools"),
    "messages": _CHATS, "conversations": _CHATS,
    "text": ("text", "content", "body", "document", "story", "article", "paragraph", "passage", "sentence"),
    "chosen": ("chosen", "chosen_response", "response_chosen", "preferred", "accepted", "winner", "better",
               "chosen_answer",
               "chosen_messages", "chosen_conversation"),
    "rejected": ("rejected", "rejected_response", "response_rejected", "dispreferred", "non_preferred", "loser",
                 "worse",
                 "rejected_answer", "rejected_messages", "rejected_conversation"),
    "margin": ("margin",), "score_chosen": ("score_chosen", "chosen_score", "chosen_rating"),
    "score_rejected": ("score_rejected", "rejected_score", "rejected_rating"),
    "answer_a": _sided(_SIDES, "a01"), "answer_b": _sided(_SIDES, "b21"),
    "winner": ("winner", "preference", "better_response_id", "overall_preference", "verdict", "preferred", "choice",
               "better",
               "labels"),
    "score_a": _sided("score rating reward", "a01"), "score_b": _sided("score rating reward", "b21"),
    "answers": ("completions", "responses", "answers", "candidates", "outputs", "generations", "all_responses",
                "output"),
    "scores": ("scores", "ratings", "rewards", "ranks", "score"),
    "label": ("label", "rating", "mark", "rated", "feedback", "thumbs", "thumb", "vote", "grade", "good", "is_good",
              "liked", "score", "kto_tag", "user_feedback", "user_rating", "thumbs_up", "helpful", "is_helpful",
              "helpfulness",
              "stars", "satisfaction", "evaluation", "correct", "is_correct"),
    "contexts": ("contexts", "context", "retrieved", "documents", "passages", "sources", "contexts_used", "chunks",
                 "retrieved_contexts", "retrieved_documents", "references", "docs", "knowledge"),
    "comment": ("comment", "comments", "why", "reason", "note", "remark", "feedback_text", "feedback_comment",
                "explanation",
                "comment_why"),
    "reasoning": ("reasoning", "reasoning_content", "thinking", "thought", "thoughts", "chain_of_thought", "cot",
                  "complex_cot",
                  "rationale", "reasoning_trace", "thinking_trajectories", "thinking_trajectory", "deepseek_reasoning",
                  "think"),
}
MEDIA = {"image", "images", "audio", "audios", "video", "videos"}
GOOD = {"good", "up", "1", "+1", "true", "yes", "y", "positive", "like", "liked", "thumbs_up", "thumbsup", "thumb_up",
        "correct", "right",
        "accept", "accepted", "👍", "desirable", "pass", "ok", "helpful", "satisfied", "upvote", "chosen", ":thumbsup:",
        ":+1:"}
BAD = {"bad", "down", "0", "-1", "false", "no", "n", "negative", "dislike", "disliked", "thumbs_down", "thumbsdown",
       "thumb_down", "wrong",
       "incorrect", "reject", "rejected", "👎", "undesirable", "fail", "unhelpful", "not_helpful", "dissatisfied",
       "unsatisfied",
       "downvote", ":thumbsdown:", ":-1:"}


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
        unfold: Column with a list of objects, each of which makes a row of its own (the instances of a seed task).
        verdict: How a verdict between two answers is written: see :func:`studio.datasets.verdicts.counting`.
    """

    format: str
    roles: dict[str, str]
    evidence: list[str] = field(default_factory=list)
    confidence: float = 1.0
    columns: list[str] = field(default_factory=list)
    scale: tuple[float, float] | None = None
    tags: list[str] = field(default_factory=list)
    canonical: bool = False
    unfold: str = ""
    verdict: str = ""

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
    if column := _instances(rows, names):
        found = detect([made for row in rows if row[column] for made in unfolded(row, column)], None, format)
        found.unfold = column
        found.evidence.append(f"'{column}' holds lists of inputs and outputs: each becomes a row.")
        return found
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


def _instances(rows: list[Row], names: list[str]) -> str:
    """Column of seed tasks that lists several inputs and outputs of one instruction, or an empty string."""
    def lists_them(row: Row, name: str) -> bool:
        inside = row.get(name)
        return isinstance(inside, list) and all(isinstance(one, dict) and {"input", "output"} <= set(one)
                                                for one in inside)

    return next((name for name in names if name.lower() in ("instances", "examples")
                 and all(lists_them(row, name) for row in rows) and any(row[name] for row in rows)), "")


def unfolded(row: Row, column: str) -> list[Row]:
    """The rows that a row with a list of instances stands for; itself where it has none."""
    inside = row.get(column) if column else None
    if not isinstance(inside, list) or not inside or not all(isinstance(one, dict) for one in inside):
        return [row]
    rest = {key: value for key, value in row.items() if key != column}
    return [rest | one for one in inside]


def extras_of(row: Row, columns: list[str], most: int = 32, longest: int = 200) -> dict[str, Any]:
    """The short values of further columns: numbers, words, lists of words, and what stands in an object of such."""
    found: dict[str, Any] = {}
    for column in columns:
        value = parsed(row.get(column))
        inner = value.items() if isinstance(value, dict) else [("", value)]
        for key, one in list(inner)[:most]:
            if isinstance(one, list) and one and all(isinstance(word, str) for word in one):
                one = ", ".join(one)
            plain = isinstance(one, (str, int, float, bool)) and one != ""
            if plain and len(str(one)) <= longest and len(found) < most:
                name = f"{column}.{key}" if key and (key in found or key in row) else str(key or column)
                found[name] = one
    return found


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
    if kind == "preference" and (other := next((need for need in OTHER_PAIRS if need <= set(given)), None)):
        return other
    needed = {role for role, must in ROLES[kind].items() if must}
    return needed | {"prompt", "completion"} if kind == "rated" and "messages" not in given else needed


class _Sample:
    """A sample of rows with questions about its columns."""

    def __init__(self, rows: list[Row], names: list[str]):
        self.rows, self.names = rows, names
        self.plain: dict[str, str] = {}
        for name in names:
            self.plain.setdefault(re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_"), name)

    def find(self, role: str, but: tuple[str | None, ...] = ()) -> str | None:
        """The first column, by the order of the aliases, that may play ``role``."""
        return next((self.plain[alias] for alias in ALIASES[role] if alias in self.plain
                     and self.plain[alias] not in but), None)

    def values(self, name: str) -> list[Any]:
        return [row[name] for row in self.rows if row.get(name) not in (None, "")]

    def roles(self, kind: str, **given: str | None) -> dict[str, str]:
        """The given roles and those optional ones that the columns' names show."""
        made = {role: column for role, column in given.items() if column}
        for role, must in ROLES[kind].items():
            if not must and role not in made and role not in ("messages", *OTHER_ROLES) and \
                    (column := self.find(role, tuple(made.values()))):
                made[role] = column
        return made


def _turns(value: Any) -> str | None:
    """Dialect of a conversation in a cell: ``messages`` | ``sharegpt`` | ``turns`` (texts in turn) | ``pairs``
    (question and answer together); else ``None``."""
    value = parsed(value)
    if dialects.is_tree(value):
        return "sharegpt"
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list) or not value:
        return None
    if dialects.is_pairs(value):
        return "pairs"
    if all(isinstance(item, dict) for item in value):
        first = value[0]
        if "role" in first and ("content" in first or "tool_calls" in first):
            return "messages"
        if any(k in first for k in ("from", "speaker", "role", "user", "author")) and \
                any(k in first for k in ("value", "text", "message", "content", "utterance")):
            return "sharegpt"
        return None
    return "turns" if len(value) > 1 and all(isinstance(item, str) for item in value) else None


def _dialect(rows: list[Row], column: str) -> str | None:
    found = Counter(_turns(row.get(column)) for row in rows[:200] if row.get(column))
    found.pop(None, None)
    word = found.most_common(1)[0][0] if found else None
    return "sharegpt" if word in ("turns", "pairs") else word


def _chat_column(table: _Sample) -> tuple[str, str] | None:
    """(column, dialect) of the conversation, the columns with a usual name first."""
    usual = [table.plain[a] for a in _CHATS if a in table.plain]
    asked = table.find("prompt")
    parts = {asked, table.find("completion", (asked,))}  # a prompt written as messages is only a part of the chat
    others = [] if None in parts else [n for n in table.names if n in parts]
    for name in dict.fromkeys([*usual, *(n for n in table.names if n not in others)]):
        kinds = Counter(_turns(v) for v in table.values(name)[:100])
        total = sum(kinds.values())
        for kind in ("messages", "sharegpt"):
            if total and kinds[kind] >= 0.5 * total:
                return name, kind
        if total and name in usual and name != "history" and kinds["turns"] + kinds["pairs"] >= 0.9 * total and not (
                kinds["turns"] and {"question_id", "reference"} & set(table.plain)):  # a benchmark's questions without answers
            return name, "sharegpt"
    return None


def _find_preference(table: _Sample) -> Detected | None:
    chosen, rejected = table.find("chosen"), table.find("rejected")
    if not chosen or not rejected:
        return _find_verdicts(table) or _find_ranked(table)
    asked = table.find("prompt", (chosen, rejected)) or table.find("messages", (chosen, rejected))
    made = table.roles("preference", chosen=chosen, rejected=rejected, prompt=asked)
    how = f"the prompt is in '{asked}'" if asked else "the prompt is what both begin with"
    return Detected("preference", made,
                    [f"Columns '{chosen}' and '{rejected}' hold the better and the worse answer; {how}."], 0.95)


def _find_verdicts(table: _Sample) -> Detected | None:
    """Two answers and which of them is better."""
    first = table.find("answer_a")
    second = table.find("answer_b", (first,))
    if not first or not second:
        return None
    made = {"answer_a": first, "answer_b": second}
    asked = table.find("prompt", (first, second)) or table.find("messages", (first, second)) or table.find("input")
    made |= {"prompt": asked} if asked else {}
    winner = table.find("winner", tuple(made.values()))
    if winner and verdicts.counting(table.values(winner), winner):
        made["winner"] = winner
        said = f"Answers in '{first}' and '{second}'; '{winner}' says which is better."
    else:
        one = table.find("score_a")
        two = table.find("score_b", (one,))
        if not one or not two or any(verdicts.number(v) is None for v in table.values(one) + table.values(two)):
            return None
        made |= {"score_a": one, "score_b": two}
        said = f"Answers in '{first}' and '{second}'; the one with the higher score ('{one}', '{two}') is better."
    return Detected("preference", table.roles("preference", **made), [said], 0.85)


def _find_ranked(table: _Sample) -> Detected | None:
    """One question with a list of scored answers, or with exactly a better and a worse one."""
    for name in (table.plain[alias] for alias in ALIASES["answers"] if alias in table.plain):
        values = table.values(name)
        asked = table.find("prompt", (name,)) or table.find("messages", (name,))
        if not asked or not values:
            continue
        scores = table.find("scores", (name, asked))
        beside = [row.get(scores) if scores else None for row in table.rows if row.get(name) not in (None, "")]
        lists = [verdicts.answers_in(value) for value in values]
        rated = [found and (isinstance(parsed(more), list) or any(score is not None for _, score in found))
                 for found, more in zip(lists, beside, strict=True)]
        if sum(map(bool, rated)) >= 0.9 * len(values):
            made = {"answers": name, "prompt": asked} | ({"scores": scores} if any(beside) and scores else {})
            return Detected("preference", table.roles("preference", **made),
                            [f"'{name}' lists scored answers to '{asked}': the best and the worst make the pair."],
                            0.8)
        if name in ("output", "outputs") and all(found and len(found) == 2 for found in lists):
            return Detected("preference", table.roles("preference", answers=name, prompt=asked),
                            [f"'{name}' holds two answers to '{asked}': the better, then the worse."], 0.7)
    return None


def _find_rated(table: _Sample) -> Detected | None:
    label = table.find("label")
    if not label or not table.values(label):
        return None
    marks = [mark(v, (0.0, 1.0)) for v in table.values(label)]
    scale = _scale(table.values(label))
    if scale is None and sum(m is not None for m in marks) < 0.9 * len(marks):
        return None
    numbered = scale is not None
    if (numbered or label in ("correct", "is_correct")) and table.find("instruction"):
        return None  # a quality score beside instructions sorts the rows, it does not rate an answer given
    if (chat := _chat_column(table)) and not numbered and not table.find("completion", (label,)):
        return Detected("rated", table.roles("rated", messages=chat[0], label=label),
                        [f"Conversations in '{chat[0]}' with a mark in '{label}'."], 0.8)
    prompt = table.find("prompt", (label,))
    answer = table.find("completion", (label, prompt))
    if not prompt or not answer or chat:
        return None
    made = table.roles("rated", prompt=prompt, completion=answer, label=label)
    if made.get("comment") == made.get("contexts"):
        made.pop("comment", None)
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
    if steps <= {0.0, 1.0} or steps <= {-1.0, 1.0} or steps == {-1.0, 0.0, 1.0}:
        return None if len(steps) < 3 else (-1.0, 1.0)
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
    word = str(value).strip().lower().replace(" ", "_").replace("thumbs-", "thumbs_")
    return True if word in GOOD else False if word in BAD else None


def _find_chat(table: _Sample, wanted: str) -> Detected | None:
    chat = _chat_column(table)
    if not chat or chat[1] != wanted:
        return None
    name, kind = chat
    role = "messages" if kind == "messages" else "conversations"
    kinds = Counter(_turns(v) for v in table.values(name)[:100])
    if kinds["pairs"] > kinds["sharegpt"]:
        said = f"'{name}' holds lists of questions with their answers, read as user and assistant."
    elif any(dialects.is_tree(v) for v in table.values(name)[:3]):
        said = f"'{name}' holds conversations as ChatGPT exports them; the newest branch of each is read."
    elif kinds["turns"] > kinds["sharegpt"]:
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
    """Adds what follows from the values: the scale of marks, tags, tools, reasoning, margins."""
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
        if "contexts" in found.roles or "comment" in found.roles:
            also = [f"{role} in '{found.roles[role]}'" for role in ("contexts", "comment") if role in found.roles]
            found.evidence.append(f"A log of a service: {', '.join(also)}.")
        if found.tags:
            found.evidence.append(f"Tags: {names_of(found.tags)}.")
    if found.format == "preference":
        if winner := found.roles.get("winner"):
            found.verdict = verdicts.counting(table.values(winner), winner) or "words"
        if "margin" in found.roles or {"score_chosen", "score_rejected"} <= set(found.roles):
            of = found.roles.get("margin") or " and ".join(f"'{found.roles[r]}'"
                                                           for r in ("score_chosen", "score_rejected"))
            found.evidence.append(f"Reward pairs: the margin comes from {of}.")
    calls, thoughts = _inside(found, table.rows[:100])
    if calls or (found.format in ("messages", "sharegpt", "prompt_completion")
                 and table.values(found.roles.get("tools", ""))):
        found.evidence.append("Tool calls are among them.")
    if media := [n for n in found.columns if n.lower() in MEDIA and any(table.values(n))]:
        found.evidence.append(f"Pictures, sound and films are not read: {names_of(media)}.")
    if "reasoning" in found.roles:
        found.evidence.append(f"The reasoning in '{found.roles['reasoning']}' is kept apart from the answer.")
    elif thoughts:
        found.evidence.append("Reasoning before the answers is kept apart from them.")
    return found


def _inside(found: Detected, rows: list[Row]) -> tuple[bool, bool]:
    """(tool calls, reasoning) somewhere in the answers of these rows?"""
    columns = [found.roles[role] for role in ("messages", "conversations", "completion", "output", "chosen",
                                              "rejected")
               if role in found.roles]
    calls = thoughts = False
    for value in (parsed(row.get(column)) for row in rows for column in columns):
        for item in value if isinstance(value, list) else [value]:
            text = item
            if isinstance(item, dict):
                calls = calls or bool(item.get("tool_calls")) or item.get("from") in ("function_call", "tool_call")
                thoughts = thoughts or any(item.get(key) for key in thinking.KEYS)
                text = item.get("content", item.get("value"))
            for part in text if isinstance(text, list) else ():
                kind = part.get("type") if isinstance(part, dict) else ""
                calls, thoughts = calls or kind == "tool_call", thoughts or kind in ("thinking", "reasoning")
            if isinstance(text, str):
                calls = calls or bool(dialects.calls_in(text)[0])
                thoughts = thoughts or bool(thinking.apart(text)[0])
    return calls, thoughts


_FINDERS = {"preference": _find_preference, "rated": _find_rated, "messages": lambda t: _find_chat(t, "messages"),
            "sharegpt": lambda t: _find_chat(t, "sharegpt"), "alpaca": _find_alpaca,
            "prompt_completion": _find_prompt_completion, "text": _find_text}
