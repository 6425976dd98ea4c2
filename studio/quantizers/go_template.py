"""Ollama's chat templates: those of the known families in Go's template language, and which of them a model speaks.

A template is only handed out after it wrote the same text as the model's own (Jinja) one, character by character, for
several conversations. For that the small part of Go's language that the texts below use is evaluated here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

_TAG = re.compile(r"\{\{(?P<left>-)?\s*(?P<code>.*?)\s*(?P<right>-)?\}\}", re.DOTALL)
_WORD = re.compile(r'\s*("(?:\\.|[^"\\])*"|\(|\)|:=|=|,|[^\s(),"]+)')
_MARK = "\x01system\x01"  # stands for a system prompt that is looked for


@dataclass(frozen=True)
class Family:
    """A way of writing conversations; ``templates`` differ in blanks and in where a system prompt goes."""

    title: str
    sign: str
    templates: tuple[str, ...]
    stop: tuple[str, ...] = ()


@dataclass
class Found:
    """What is known of a model's way of writing conversations.

    Attributes:
        family: Title, or an empty string where none writes the same.
        template: Go's text for Ollama's ``TEMPLATE``.
        system: The system prompt the model's own template puts in front where none is given.
        takes_system: Its template takes a system prompt and the Go text writes it in the same place.
    """

    family: str = ""
    template: str = ""
    stop: list[str] = field(default_factory=list)
    system: str = ""
    takes_system: bool = True


_TURNS = "{{- range .Messages }}%s{{ end }}%s"
_CHATML = _TURNS % ("<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n", "<|im_start|>assistant\n")
_LLAMA3 = _TURNS % ("<|start_header_id|>{{ .Role }}<|end_header_id|>\n\n{{ .Content }}<|eot_id|>",
                    "<|start_header_id|>assistant<|end_header_id|>\n\n")
_PHI3 = _TURNS % ("<|{{ .Role }}|>\n{{ .Content }}<|end|>\n", "<|assistant|>\n")
_ZEPHYR = _TURNS % ("<|{{ .Role }}|>\n{{ .Content }}</s>\n", "<|assistant|>\n")
# A system prompt stands before the first question: these families have no turn of its own for it.
_GEMMA = ('{{- $first := true }}{{- range .Messages }}{{- if eq .Role "assistant" }}<start_of_turn>model\n{{ .Content }}'
          '<end_of_turn>\n{{ else if eq .Role "user" }}<start_of_turn>user\n{{ if and $first $.System }}{{ $.System }}\n\n'
          '{{ end }}{{ .Content }}<end_of_turn>\n{{ $first = false }}{{ end }}{{ end }}<start_of_turn>model\n')


def _mistral() -> Iterator[str]:
    """Mistral's templates of all versions differ in the blanks around a question and an answer."""
    for before in (" ", ""):
        for after in (" ", ""):
            for answer in (" ", ""):
                yield ('{{- $first := true }}{{- range .Messages }}{{- if eq .Role "assistant" }}' + answer + "{{ .Content }}</s>"
                       '{{ else if eq .Role "user" }}[INST]' + before + "{{ if and $first $.System }}{{ $.System }}\n\n{{ end }}"
                       "{{ .Content }}" + after + "[/INST]{{ $first = false }}{{ end }}{{ end }}")
                yield ('{{- range .Messages }}{{- if eq .Role "system" }}[SYSTEM_PROMPT]' + before + "{{ .Content }}" + after
                       + '[/SYSTEM_PROMPT]{{ else if eq .Role "user" }}[INST]' + before + "{{ .Content }}" + after
                       + "[/INST]{{ else }}" + answer + "{{ .Content }}</s>{{ end }}{{ end }}")


FAMILIES = (
    Family("ChatML", "<|im_start|>", (_CHATML,), ("<|im_end|>", "<|im_start|>")),
    Family("Llama 3", "<|start_header_id|>", (_LLAMA3,), ("<|eot_id|>", "<|end_of_text|>")),
    Family("Gemma", "<start_of_turn>", (_GEMMA,), ("<end_of_turn>",)),
    Family("Phi-3", "<|end|>", (_PHI3,), ("<|end|>", "<|endoftext|>")),
    Family("Mistral", "[INST]", tuple(_mistral()), ("[INST]", "[/INST]")),
    Family("Zephyr", "<|assistant|>", (_ZEPHYR,), ("<|user|>", "<|system|>")),
)


def recognise(source: str, tell: Callable[[list[dict[str, str]]], str]) -> Found:
    """Which Go template writes what the model's own does.

    Args:
        source: The Jinja template, searched for the marks of a family only.
        tell: Renders a conversation with it, without the begin token, ready for an answer; raises where it refuses.
    """
    def told(chat: list[tuple[str, str]]) -> str | None:
        try:
            return tell([{"role": role, "content": text} for role, text in chat])
        except Exception:  # a template raises what it likes for roles that it does not take
            return None

    ask, talk = [("user", "first question")], [("user", "one"), ("assistant", "two"), ("user", "three")]
    lead = [("system", "be kind")]
    own = {name: told(chat) for name, chat in (("ask", ask), ("talk", talk), ("led", lead + ask), ("both", lead + talk))}
    if own["ask"] is None:
        return Found()
    nearly = Found()  # writes the same but for where the system prompt stands
    for family in (one for one in FAMILIES if one.sign in source):
        for template in family.templates:
            takes = own["led"] is not None and (own["led"], own["both"]) == (say(template, lead + ask), say(template, lead + talk))
            plain = (own["ask"], own["talk"]) == (say(template, ask), say(template, talk))
            if plain and takes:
                return Found(family.title, template, list(family.stop))
            if plain and not nearly.template:
                nearly = Found(family.title, template, list(family.stop), takes_system=False)
            if takes and (system := _default(template, ask, own["ask"])) and say(template, [("system", system), *talk]) == own["talk"]:
                return Found(family.title, template, list(family.stop), system)
    return nearly


def _default(template: str, ask: list[tuple[str, str]], own: str) -> str:
    """The system prompt that the model's template writes where none is given."""
    head, _, tail = say(template, [("system", _MARK), *ask]).partition(_MARK)
    fits = own.startswith(head) and own.endswith(tail) and len(own) > len(head) + len(tail)
    return own[len(head):len(own) - len(tail)] if fits else ""


def say(template: str, chat: list[tuple[str, str]]) -> str:
    """A conversation as Ollama would write it with this template, ready for an answer."""
    given = {"System": "\n\n".join(text for role, text in chat if role == "system"),
             "Messages": [{"Role": role, "Content": text} for role, text in chat]}
    out: list[str] = []
    _run(_parse(template), given, given, {}, out)
    return "".join(out)


def _parse(template: str) -> list[Any]:
    """Nested lists of texts and ``(code, body, otherwise)``; bodies only of ``range`` and ``if``."""
    parts, at, eat = [], 0, False
    for match in _TAG.finditer(template):
        text = template[at:match.start()]
        text = text.lstrip() if eat else text
        parts += [text.rstrip() if match["left"] else text, match["code"]]
        at, eat = match.end(), bool(match["right"])
    parts.append(template[at:].lstrip() if eat else template[at:])
    rest = iter(enumerate(parts))

    def block() -> tuple[list[Any], str]:
        """Up to the ``else`` or ``end`` that closes it, and that word."""
        made: list[Any] = []
        for number, part in rest:
            if number % 2 == 0:
                made.append(part)
            elif part.startswith(("if ", "range ")):
                made.append(branch(part))
            elif part == "end" or part.startswith("else"):
                return made, part
            else:
                made.append((part, None, None))
        return made, ""

    def branch(code: str) -> tuple[str, list[Any], list[Any]]:
        body, closed = block()
        if closed == "end":
            return code, body, []
        if closed.startswith("else if "):
            return code, body, [branch(closed[5:])]
        return code, body, block()[0]

    return block()[0]


def _run(nodes: list[Any], dot: Any, root: Any, held: dict[str, Any], out: list[str]) -> None:
    for node in nodes:
        if isinstance(node, str):
            out.append(node)
            continue
        code, body, otherwise = node
        if body is None:
            name, sign, value = _assigned(code)
            if sign:
                held[name] = _value(value, dot, root, held)
            else:
                out.append(str(_value(code, dot, root, held)))
        elif code.startswith("range "):
            for item in _value(code[6:], dot, root, held):
                _run(body, item, root, held, out)
        else:
            _run(body if _value(code[3:], dot, root, held) else otherwise, dot, root, held, out)


def _assigned(code: str) -> tuple[str, str, str]:
    match = re.fullmatch(r"(\$\w+)\s*(:?=)\s*(.+)", code)
    return match.groups() if match else ("", "", "")


def _value(code: str, dot: Any, root: Any, held: dict[str, Any]) -> Any:
    """``eq .Role "user"``, ``and $first $.System``, ``.Content``: what the templates above use of Go's expressions.

    Raises:
        ValueError: anything else.
    """
    words = _WORD.findall(code)
    values = [_word(word, dot, root, held) for word in (words[1:] if words[0] in ("eq", "and", "or", "not") else words)]
    match words[0]:
        case "eq":
            return values[0] == values[1]
        case "and":
            return next((value for value in values if not value), values[-1])
        case "or":
            return next((value for value in values if value), values[-1])
        case "not":
            return not values[0]
    return values[0]


def _word(word: str, dot: Any, root: Any, held: dict[str, Any]) -> Any:
    if word.startswith('"'):
        return word[1:-1]
    if word in ("true", "false"):
        return word == "true"
    if word.startswith("$."):
        return root[word[2:]]
    if word.startswith("."):
        return dot[word[1:]]
    if word in held:
        return held[word]
    raise ValueError(f"{word!r} is not understood")
