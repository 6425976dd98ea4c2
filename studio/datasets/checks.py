"""Faults of rows, counted: what is left out, what was mended, and what is only suspicious."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from studio.datasets.cells import compact, ends_whole, is_mojibake
from studio.datasets.convert import MENDS, REJECTS, Reject, turns_of
from studio.datasets.formats import content_hash
from studio.datasets.rows import BAD, EXAMPLES

Row = dict[str, Any]
WHOLE_SHARE = 0.8  # where most answers end with a full stop or the like, one that does not is suspicious

_SPECIAL = re.compile(r"<\|[a-z0-9_]{2,30}\|>|</?s>|\[/?INST\]|<<SYS>>|<(start|end)_of_turn>"
                      r"|### (Response|Instruction|Assistant|Human):")
_HTML = re.compile(r"<(script|iframe|img|object|embed|style|div|span|p|br|a)\b[^>]{0,200}>", re.I)
# code -> (severity, sentence, what to do)
_TEXTS = {
    "mojibake": ("warning", "Broken characters in {rows}: text that was once read in the wrong encoding.",
                 "Export the data again as UTF-8."),
    "truncated": ("warning", "An answer that seems cut off in {rows}: most others end with a full stop or the like.",
                  "Complete or remove them; the model learns to stop there."),
    "duplicate": ("warning", "An earlier row word for word in {rows}.", "They are kept, and count twice in training."),
    "conflicting": ("warning", "Another answer to the same question as earlier in {rows}.",
                    "Keep the answer you want."),
    "special_tokens": ("warning", "Markers of a chat template, such as <|im_end|>, in {rows}.",
                       "Remove them: the template adds its own."),
    "html": ("info", "HTML tags in {rows}; they are learned as text.",
             "Clean them if the model should not write HTML."),
}
_HINTS = {
    "empty_answer": "Write the answers or remove the rows.", "missing_answer": "Write the answers or remove the rows.",
    "no_answer": "A chat needs at least one message of the assistant.",
    "unknown_role": "Use system, user, assistant and tool.",
    "late_system": "Put the system message first.", "assistant_first": "A chat starts with the user.",
    "broken_line": "Each line must be one JSON object.", "cut_line": "The file was cut off: fetch or export it again.",
    "no_mark": "Marks are good or bad, true or false, 1 or 0, thumbs up or down, or numbers on a scale.",
}


class Checks:
    """Counts the faults of rows as they come by."""

    def __init__(self) -> None:
        self.rejects: Counter[str] = Counter()
        self.mends: Counter[str] = Counter()
        self.flags: Counter[str] = Counter()
        self.examples: dict[tuple[str, str], list[str]] = {}
        self._seen: set[bytes] = set()
        self._answers: dict[bytes, set[bytes]] = {}
        self._open: list[str] = []  # rows whose answer has no end
        self._ends = self._answered = self._unended = 0

    def reject(self, number: int, reject: Reject) -> None:
        self._count("reject", self.rejects, reject.reason,
                    f"row {number}" + (f": {reject.detail}" if reject.detail else ""))

    def row(self, number: int, row: Row, codes: list[str]) -> None:
        """Look at a usable row, in canonical shape, with the codes of what was mended in it."""
        place = f"row {number}"
        for code in set(codes):
            self._count("mend", self.mends, code, place)
        texts = [str(m.get("content") or "") for m in turns_of(row)]
        texts += [str(m.get("content") or "") for m in row["rejected"]] if isinstance(row.get("rejected"), list) else \
            [row["rejected"]] if "rejected" in row else []
        for code, found in (("mojibake", is_mojibake), ("special_tokens", _SPECIAL.search), ("html", _HTML.search)):
            if hit := next((t for t in texts if found(t)), None):
                self._count("flag", self.flags, code, f"{place}: {_short(hit)}")
        if (key := content_hash(row)) in self._seen:
            self._count("flag", self.flags, "duplicate", place)
        self._seen.add(key)
        if "text" in row or "label" in row:
            return
        *asked, answer = turns_of(row)
        self._answered += 1
        if ends_whole(answer["content"]) or answer.get("tool_calls"):
            self._ends += 1
        else:
            self._unended += 1
            if len(self._open) < EXAMPLES:
                self._open.append(f"{place}: {_short(answer['content'], end=True)}")
        known = self._answers.setdefault(content_hash(asked), set())
        this = content_hash(compact(answer))
        if known and this not in known and "chosen" not in row:
            self._count("flag", self.flags, "conflicting", f"{place}: {_short(asked[-1]['content'] if asked else '')}")
        known.add(this)

    def _count(self, kind: str, counter: Counter[str], code: str, example: str) -> None:
        counter[code] += 1
        places = self.examples.setdefault((kind, code), [])
        if len(places) < EXAMPLES:
            places.append(example)

    def findings(self, source: Any) -> list[dict[str, Any]]:
        """Every finding, the gravest first. ``source`` is the reader the rows came from."""
        made = [_finding(code, "error", n, f"{_rows(n)} left out: {BAD[code]}.",
                         _HINTS.get(code, "Mend them or go on without them."),
                         source.examples[code]) for code, n in source.bad.items()]
        made += [_finding(code, "error", n, f"{_rows(n)} left out: {REJECTS[code]}.",
                          _HINTS.get(code, "Mend them or go on without them."), self.examples["reject", code])
                 for code, n in self.rejects.items()]
        made += [_finding(code, "warning", n, f"In {_rows(n, '')} {MENDS[code]}.", "Check that this is what you want.",
                          self.examples["mend", code]) for code, n in self.mends.items()]
        flags = dict(self.flags)
        if self._unended and self._ends >= WHOLE_SHARE * self._answered and self._answered >= 10:
            flags["truncated"] = self._unended
            self.examples["flag", "truncated"] = self._open
        for code, n in flags.items():
            severity, said, hint = _TEXTS[code]
            made.append(_finding(code, severity, n, said.format(rows=_rows(n, "")), hint, self.examples["flag", code]))
        if source.mended:
            made.append(_finding("encoding", "warning", source.mended,
                                 "Some bytes are no UTF-8: they are read as Windows-1252 "
                                 "(Western European).",
                                 "Look at accented letters in the samples; better export the file as UTF-8.", []))
        order = {"error": 0, "warning": 1, "info": 2}
        return sorted(made, key=lambda f: (order[f["severity"]], -f["count"]))


def _finding(code: str, severity: str, count: int, message: str, hint: str, examples: list[str]) -> dict[str, Any]:
    return {"code": code, "severity": severity, "count": count, "message": message, "hint": hint, "examples": examples}


def _rows(count: int, verb: str = "be") -> str:
    noun = "1 row" if count == 1 else f"{count:,} rows"
    return noun + ("" if not verb else " is" if count == 1 else " are")


def _short(text: str, end: bool = False, most: int = 80) -> str:
    text = " ".join(text[-400:].split() if end else text[:400].split())
    if len(text) <= most:
        return text
    return "…" + text[-most:] if end else text[:most] + "…"
