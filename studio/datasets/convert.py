"""One row of any known format -> its canonical shape.

Canonical shapes (the ones TRL reads):
``{"messages": [{role, content, ...}], "tools"?}`` · ``{"prompt", "completion"}`` · ``{"text"}`` ·
``{"prompt", "chosen", "rejected", "margin"?}`` · ``{"prompt", "completion", "label", "contexts"?, "comment"?, "tags"?}``.
Messages of the assistant keep reasoning apart in ``reasoning_content``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from studio.datasets import dialects, thinking, verdicts
from studio.datasets.cells import as_text, parsed
from studio.datasets.roles import Detected, extras_of, mark

Row = dict[str, Any]

# Code -> what it means. Rows with a fault of the first kind are left out, those of the second are mended.
REJECTS = {
    "missing_answer": "the answer is missing", "empty_answer": "the answer is empty",
    "empty_prompt": "the question is empty",
    "no_messages": "there are no messages", "no_answer": "nobody answers", "not_text": "a message is not text",
    "unknown_role": "a role is not known", "late_system": "a system message comes after the first",
    "assistant_first": "the assistant speaks first and nobody asks after that",
    "tool_order": "a tool answers that was not called",
    "bad_tool_call": "a tool call is not readable", "same_pair": "the better and the worse answer are the same",
    "no_pair": "the better or the worse answer is missing", "tie": "no answer is better than the other",
           "no_mark": "the mark says neither good nor bad",
    "empty_text": "the text is empty", "rated_bad": "the answer is marked bad",
}
MENDS = {
    "assistant_first": "the assistant spoke first: that turn is left out",
    "user_twice": "the same role spoke twice in a row: joined",
    "unanswered_end": "the last messages have no answer: left out",
    "number": "a number stood in place of a text: written out",
}
_NAMES = {"user": "user human customer client visitor questioner person",
          "assistant": "assistant gpt bot chatgpt model ai chatbot agent assistant_message claude gemini llm bing bard gpt4 "
                       "gpt_4 gpt_3.5 gpt3.5 answerer",
          "system": "system developer",
          "tool": "tool function observation function_response tool_response ipython function_output tool_result "
                  "tool_results environment",
          "call": "function_call tool_call"}
_ROLES = {word: role for role, words in _NAMES.items() for word in words.split()}
_HH = ("\n\nHuman:", "\n\nAssistant:")


@dataclass(frozen=True)
class Reject:
    """Why a row cannot be used: a key of :data:`REJECTS`, and where in the row."""

    reason: str
    detail: str = ""

    def __str__(self) -> str:
        return REJECTS.get(self.reason, self.reason) + (f" ({self.detail})" if self.detail else "")


class _Bad(Exception):
    def __init__(self, reason: str, detail: str = ""):
        super().__init__(reason)
        self.reject = Reject(reason, detail)


def normalise(row: Row, detected: Detected, mended: list[str] | None = None) -> Row | Reject:
    """A row in its canonical shape, or the reason why it cannot be used.

    Args:
        mended: Gets the codes (:data:`MENDS`) of what was put right on the way.
    """
    if detected.canonical:
        return row
    try:
        return _SHAPES[detected.format](row, detected, [] if mended is None else mended)
    except _Bad as bad:
        return bad.reject


def _cell(row: Row, detected: Detected, role: str) -> Any:
    column = detected.roles.get(role)
    return row.get(column) if column else None


def _string(value: Any, reason: str, mended: list[str]) -> str:
    """A cell as text that is not blank."""
    text = as_text(value)
    if text is None:
        raise _Bad("not_text" if value not in (None, [], {}) else reason)
    if isinstance(value, (int, float)):
        mended.append("number")
    if not text.strip():
        raise _Bad(reason)
    return text


def _optional(value: Any) -> str:
    return (as_text(value) or "").strip()


def _messages(row: Row, detected: Detected, mended: list[str]) -> Row:
    value = parsed(_cell(row, detected, "conversations" if "conversations" in detected.roles else "messages"))
    if dialects.is_tree(value):
        value = dialects.branch(value)
    made = {"messages": conversation(value, mended, _optional(_cell(row, detected, "system")))}
    tools = _tools(_cell(row, detected, "tools"))
    return made | {"tools": tools} if tools else made


def conversation(value: Any, mended: list[str], system: str = "") -> list[Row]:
    """A list of turns in any dialect as checked messages that end with an answer.

    Raises:
        _Bad: with the reason why it cannot be used.
    """
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list) or not value:
        raise _Bad("no_messages")
    if dialects.is_pairs(value):
        value = dialects.unpaired(value)
    elif all(isinstance(item, str) for item in value):
        value = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(value)]
    turns = [_turn(item, i, mended) for i, item in enumerate(value, 1)]
    if system and turns[0]["role"] != "system":
        turns.insert(0, {"role": "system", "content": system})
    if turns[0]["role"] == "system" and not turns[0]["content"].strip():
        turns.pop(0)
    return _ordered(turns, mended)


def _turn(item: Any, number: int, mended: list[str]) -> Row:
    """One message with a known role and text content."""
    if not isinstance(item, dict):
        raise _Bad("not_text", f"message {number}")
    word = next((item[k] for k in ("role", "from", "speaker", "user", "author") if isinstance(item.get(k), str)), None)
    role = _ROLES.get(str(word).strip().lower().replace("-", "_").replace(" ", "_"))
    if role is None:
        raise _Bad("unknown_role", str(word)[:40])
    content = next((item[k] for k in ("content", "value", "text", "message", "utterance") if k in item), None)
    if role == "call":
        return {"role": "assistant", "content": "", "tool_calls": _calls(content)}
    made: Row = {"role": role}
    if isinstance(content, list) and any(isinstance(part, dict) and part.get("type") == "tool_call"
                                         for part in content):
        written = [parsed(part.get("value", part.get("tool_call"))) for part in content
                   if part.get("type") == "tool_call"]
        made["tool_calls"] = _calls([call for one in written for call in (one if isinstance(one, list) else [one])])
        content = [part for part in content if part.get("type") != "tool_call"]
    calls = item.get("tool_calls") or item.get("function_call")
    if calls and role == "assistant":
        made["tool_calls"] = _calls(calls)
    if content is None and "tool_calls" in made:
        content = ""
    if role == "tool" and isinstance(content, (dict, list)) and as_text(content) is None:
        import json

        content = json.dumps(content, ensure_ascii=False)
    text = as_text(content)
    if text is None and content in ([], {}):
        text = ""
    reasoning = ""
    if role == "assistant":
        reasoning, text = thinking.of_message(item | {"content": content}, text)
        if text and "tool_calls" not in made:
            written, rest = dialects.calls_in(text)
            if written:
                made["tool_calls"], text = _calls(written), rest
    elif role == "tool" and text:
        text = dialects.response_in(text)
    if text is None:
        raise _Bad("not_text", f"message {number}" + (": a picture, sound or film" if _has_media(content) else ""))
    if isinstance(content, (int, float)):
        mended.append("number")
    if role == "assistant" and not text.strip() and "tool_calls" not in made:
        raise _Bad("empty_answer", f"message {number}")
    made["content"] = text
    if reasoning:
        made["reasoning_content"] = reasoning
    for key in ("name", "tool_call_id"):
        if isinstance(item.get(key), str) and item[key]:
            made[key] = item[key]
    return {"role": made.pop("role"), "content": made.pop("content")} | made


def _has_media(content: Any) -> bool:
    kinds = ("image", "audio", "video", "input_image", "input_audio")
    return isinstance(content, list) and any(isinstance(part, dict) and str(part.get("type", "")).startswith(kinds)
                                             for part in content)


def _calls(value: Any) -> list[Row]:
    """Tool calls as templates want them: type, function name, and arguments as an object."""
    value = parsed(value)
    made = []
    for call in value if isinstance(value, list) else [value]:
        function = call.get("function", call) if isinstance(call, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str) or not name:
            raise _Bad("bad_tool_call")
        arguments = parsed(function.get("arguments", function.get("parameters")) or {})
        if not isinstance(arguments, dict):
            raise _Bad("bad_tool_call", name)
        one: Row = {"type": "function", "function": {"name": name, "arguments": arguments}}
        if isinstance(call.get("id"), str) and call["id"]:
            one["id"] = call["id"]
        made.append(one)
    return made


def _tools(value: Any) -> list[Row] | None:
    value = parsed(value)
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        return None
    return [tool if "function" in tool else {"type": "function", "function": tool} for tool in value] or None


def _ordered(turns: list[Row], mended: list[str]) -> list[Row]:
    """Turns in an order every chat template takes, or the reason why there is none."""
    head, rest = (turns[:1], turns[1:]) if turns[0]["role"] == "system" else ([], turns)
    if not any(turn["role"] == "assistant" for turn in rest):
        raise _Bad("no_answer")
    while rest[-1]["role"] != "assistant":
        if rest[-1]["role"] == "system":
            raise _Bad("late_system")
        rest.pop()
        mended.append("unanswered_end")
    if any(turn["role"] == "system" for turn in rest):
        raise _Bad("late_system")
    if rest[0]["role"] == "assistant":
        while rest and rest[0]["role"] == "assistant":
            rest = rest[1:]
        if not any(turn["role"] == "assistant" for turn in rest):
            raise _Bad("assistant_first")
        mended.append("assistant_first")
    out: list[Row] = []
    for turn in rest:
        before = out[-1] if out else None
        if turn["role"] == "tool" and not (before and (before["role"] == "tool" or "tool_calls" in before)):
            raise _Bad("tool_order")
        if before and turn["role"] == before["role"] and turn["role"] != "tool":
            if "tool_calls" in before or "tool_calls" in turn:
                raise _Bad("tool_order")
            thoughts = [m["reasoning_content"] for m in (before, turn) if "reasoning_content" in m]
            out[-1] = before | {"content": f"{before['content']}\n\n{turn['content']}"} | (
                {"reasoning_content": "\n\n".join(thoughts)} if thoughts else {})
            mended.append("user_twice")
        else:
            out.append(turn)
    if not all(turn["content"].strip() for turn in out if turn["role"] == "user"):
        raise _Bad("empty_prompt")
    return head + out


def _alpaca(row: Row, detected: Detected, mended: list[str]) -> Row:
    task = _string(_cell(row, detected, "instruction"), "empty_prompt", mended)
    extra = _optional(_cell(row, detected, "input"))
    answer = _answer(row, detected, "output", mended)
    turns: list[Row] = []
    if system := _optional(_cell(row, detected, "system")):
        turns.append({"role": "system", "content": system})
    for pair in _pairs(_cell(row, detected, "history")):
        turns += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    turns.append({"role": "user", "content": f"{task}\n\n{extra}" if extra else task})
    return {"messages": [*turns, _thoughtful(answer, _cell(row, detected, "reasoning"))]}


def _thoughtful(answer: str, thought: Any = None) -> Row:
    """The message of an answer, with the reasoning of its column or of its own text apart."""
    beside = as_text(thought[0] if isinstance(thought, list) and thought else thought) or ""
    reasoning, text = (beside.strip(), answer) if beside.strip() else thinking.apart(answer)
    return {"role": "assistant", "content": text} | ({"reasoning_content": reasoning} if reasoning else {})


def _pairs(value: Any) -> list[tuple[str, str]]:
    value = parsed(value)
    if not isinstance(value, list):
        return []
    return [(p[0], p[1]) for p in value if isinstance(p, (list, tuple)) and len(p) == 2
            and all(isinstance(t, str) and t.strip() for t in p)]


def _answer(row: Row, detected: Detected, role: str, mended: list[str]) -> str:
    value = _cell(row, detected, role)
    if isinstance(value, dict) and isinstance(value.get("text"), list) and value["text"]:
        value = value["text"][0]  # the answers of SQuAD and its like
    return _string(value, "missing_answer" if value is None else "empty_answer", mended)


def _prompt_completion(row: Row, detected: Detected, mended: list[str]) -> Row:
    prompt, answer = parsed_turns(_cell(row, detected, "prompt")), parsed_turns(_cell(row, detected, "completion"))
    system, tools = _optional(_cell(row, detected, "system")), _tools(_cell(row, detected, "tools"))
    if tools and (calls := _call_list(_cell(row, detected, "completion"))):
        turns = [*_as_turns(prompt, "user", "empty_prompt", mended),
                 {"role": "assistant", "content": "", "tool_calls": _calls(calls)}]
        return {"messages": conversation(turns, mended, system), "tools": tools}
    if isinstance(prompt, list) or isinstance(answer, list) or system:
        whole = conversation(_as_turns(prompt, "user", "empty_prompt", mended)
                             + _as_turns(answer, "assistant", "missing_answer", mended), mended, system)
        if system:
            return {"messages": whole}
        cut = len(whole) - max(1, len(answer) if isinstance(answer, list) else 1)
        return {"prompt": whole[:max(1, cut)], "completion": whole[max(1, cut):]}
    asked = _string(prompt, "empty_prompt", mended)
    return _with_reasoning({"prompt": asked, "completion": _answer(row, detected, "completion", mended)},
                           _cell(row, detected, "reasoning"))


def _with_reasoning(made: Row, thought: Any = None) -> Row:
    """A question and its answer as messages where there is reasoning to keep apart; as texts where there is none."""
    answer = _thoughtful(made["completion"], thought)
    if "reasoning_content" not in answer:
        return made
    return made | {"prompt": [{"role": "user", "content": made["prompt"]}], "completion": [answer]}


def _call_list(value: Any) -> list[Any]:
    """A cell that is a list of tool calls and nothing else."""
    value = parsed(value)
    value = [value] if isinstance(value, dict) else value
    if not isinstance(value, list):
        return []
    named = all(isinstance(call, dict) and isinstance(call.get("function", call), dict)
                and isinstance(call.get("function", call).get("name"), str) for call in value)
    return value if named else []


def parsed_turns(value: Any) -> Any:
    """A cell that holds messages, perhaps written as a string, as the list of them; any other cell as it is."""
    made = parsed(value)
    if isinstance(made, dict) and ("role" in made or "from" in made):
        made = [made]
    if not isinstance(made, list) or not made:
        return value
    return made if all(isinstance(m, dict) and ("role" in m or "from" in m) for m in made) else value


def _as_turns(value: Any, role: str, reason: str, mended: list[str]) -> list[Any]:
    return value if isinstance(value, list) else [{"role": role, "content": _string(value, reason, mended)}]


def _text(row: Row, detected: Detected, mended: list[str]) -> Row:
    return {"text": _string(_cell(row, detected, "text"), "empty_text", mended)}


def _preference(row: Row, detected: Detected, mended: list[str]) -> Row:
    """Pairs with the prompt apart, as text or as messages. Without a prompt column it is what both begin with."""
    better, worse, margin = _sides(row, detected)
    sides = [parsed_turns(side) for side in (better, worse)]
    if any(side in (None, "", [], {}) for side in sides):
        raise _Bad("no_pair")
    asked = parsed_turns(_cell(row, detected, "prompt"))
    extra, system = _optional(_cell(row, detected, "input")), _optional(_cell(row, detected, "system"))
    if isinstance(asked, str) and extra:
        asked = f"{asked}\n\n{extra}"
    if all(isinstance(side, str) for side in sides) and all(side.startswith(_HH[0]) for side in sides):
        sides, asked = [_hh(side) for side in sides], None
    if all(isinstance(side, str) for side in sides) and not isinstance(asked, list) and not system:
        better, worse = sides
        if asked in (None, ""):
            shared = _shared(better, worse)
            asked, better, worse = better[:shared].rstrip(), better[shared:], worse[shared:]
        made: Row = {"prompt": _string(asked, "empty_prompt", mended), "chosen": _string(better, "no_pair", mended),
                     "rejected": _string(worse, "no_pair", mended)}
        answers = [_thoughtful(made["chosen"]), _thoughtful(made["rejected"])]
        if any("reasoning_content" in answer for answer in answers):
            made = {"prompt": [{"role": "user", "content": made["prompt"]}], "chosen": answers[:1],
                    "rejected": answers[1:]}
    else:
        before = _as_turns(asked, "user", "empty_prompt", mended) if asked not in (None, "", []) else []
        full = []
        for side in sides:
            turns = _as_turns(side, "assistant", "no_pair", mended)
            # Many sets repeat the whole conversation in each side, even when a prompt column is there.
            full.append(conversation(turns if len(turns) > 1 else before + turns, mended, system))
        shared = 0
        while shared < min(len(full[0]), len(full[1])) - 1 and full[0][shared] == full[1][shared]:
            shared += 1
        if shared == 0:
            raise _Bad("empty_prompt")
        made = {"prompt": full[0][:shared], "chosen": full[0][shared:], "rejected": full[1][shared:]}
    if made["chosen"] == made["rejected"]:
        raise _Bad("same_pair")
    return made | {"margin": margin} if margin is not None else made


def _sides(row: Row, detected: Detected) -> tuple[Any, Any, float | None]:
    """(better, worse, how much better) of a pair, however it is written.

    Raises:
        _Bad: a tie, or no pair.
    """
    def score(role: str) -> float | None:
        return verdicts.number(_cell(row, detected, role))

    if "answers" in detected.roles:
        found = verdicts.extremes(_cell(row, detected, "answers"), _cell(row, detected, "scores"))
        if found is None:
            raise _Bad("tie" if verdicts.answers_in(_cell(row, detected, "answers")) else "no_pair")
        return found
    if "answer_a" in detected.roles and "chosen" not in detected.roles:
        first, second = _cell(row, detected, "answer_a"), _cell(row, detected, "answer_b")
        gap = None
        if "winner" in detected.roles:
            wins = verdicts.first_wins(_cell(row, detected, "winner"), detected.verdict)
        else:
            one, two = score("score_a"), score("score_b")
            wins = None if one is None or two is None or one == two else one > two
            gap = abs(one - two) if wins is not None else None
        if wins is None:
            raise _Bad("tie")
        return (first, second, gap) if wins else (second, first, gap)
    better, worse = score("score_chosen"), score("score_rejected")
    margin = score("margin") if "margin" in detected.roles else None
    if margin is None and better is not None and worse is not None:
        margin = better - worse
    return _cell(row, detected, "chosen"), _cell(row, detected, "rejected"), margin


def _shared(a: str, b: str) -> int:
    """Length of the common beginning of two texts, cut back to the end of a word."""
    n = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    while 0 < n < max(len(a), len(b)) and not a[n - 1].isspace():
        n -= 1
    return n


def _hh(text: str) -> list[Row]:
    """``\\n\\nHuman: ...\\n\\nAssistant: ...`` as messages (the layout of Anthropic's HH-RLHF)."""
    turns: list[Row] = []
    for part in text.split(_HH[0])[1:]:
        asked, *answers = part.split(_HH[1])
        turns.append({"role": "user", "content": asked.strip()})
        turns += [{"role": "assistant", "content": answer.strip()} for answer in answers]
    return turns


def _rated(row: Row, detected: Detected, mended: list[str]) -> Row:
    good = mark(_cell(row, detected, "label"), detected.scale)
    if good is None:
        raise _Bad("no_mark")
    if "messages" in detected.roles:
        turns = conversation(parsed(_cell(row, detected, "messages")), mended,
                             _optional(_cell(row, detected, "system")))
        made: Row = {"prompt": turns[:-1], "completion": turns[-1:], "label": good}
    else:
        contexts = _contexts(_cell(row, detected, "contexts"))
        asked, said = (parsed_turns(_cell(row, detected, role)) for role in ("prompt", "completion"))
        if isinstance(asked, list) or isinstance(said, list):
            if not isinstance(said, list):
                said = [{"role": "assistant", "content": _answer(row, detected, "completion", mended)}]
            turns = conversation([*_as_turns(asked, "user", "empty_prompt", mended), *said], mended,
                                 _optional(_cell(row, detected, "system")))
            made = {"prompt": turns[:-1], "completion": turns[-1:], "label": good}
        else:
            made = _with_reasoning({"prompt": _string(asked, "empty_prompt", mended),
                                    "completion": _answer(row, detected, "completion", mended), "label": good})
        if contexts:
            made["contexts"] = contexts
    if comment := _optional(_cell(row, detected, "comment")):
        made["comment"] = comment
    tags = extras_of(row, detected.tags)
    return made | {"tags": tags} if tags else made


def _contexts(value: Any) -> list[str]:
    value = parsed(value)
    texts = []
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, dict):
            item = next((item[k] for k in ("text", "content", "page_content", "passage", "chunk", "snippet", "body",
                                           "document")
                         if isinstance(item.get(k), str)), None)
        if text := _optional(item):
            texts.append(text)
    return texts


_SHAPES = {"messages": _messages, "sharegpt": _messages, "alpaca": _alpaca, "prompt_completion": _prompt_completion,
           "text": _text, "preference": _preference, "rated": _rated}


def for_sft(row: Row) -> Row | Reject:
    """A canonical row as an example to imitate: the better answer of a pair, the good ones of rated answers.

    The contexts of a rated answer go before its question, one a line, because the answer was given from them.
    """
    if "chosen" in row:
        return {"prompt": row["prompt"], "completion": row["chosen"]}
    if "label" in row:
        if not row["label"]:
            return Reject("rated_bad")
        prompt, contexts = row["prompt"], "\n".join(row.get("contexts", []))
        if contexts and isinstance(prompt, str):
            prompt = f"{contexts}\n\n{prompt}"
        elif contexts:
            last = {**prompt[-1], "content": f"{contexts}\n\n{prompt[-1]['content']}"}
            prompt = [*prompt[:-1], last]
        return {"prompt": prompt, "completion": row["completion"]}
    return row


def turns_of(row: Row) -> list[Row]:
    """A canonical row as one list of messages; plain text is one message of the assistant."""
    if "messages" in row:
        return row["messages"]
    if "text" in row:
        return [{"role": "assistant", "content": row["text"]}]
    asked, answer = row["prompt"], row.get("completion", row.get("chosen"))
    asked = asked if isinstance(asked, list) else [{"role": "user", "content": asked}]
    return asked + (answer if isinstance(answer, list) else [{"role": "assistant", "content": answer}])
