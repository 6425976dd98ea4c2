"""What the doctor says of each fault, and the step that mends it."""

from __future__ import annotations

from typing import Any

# Code -> (severity, sentence with {rows}, hint, title of the fix). In the order in which they are best mended.
DIAGNOSES = {
    "empty": ("error", "A message without text in {rows}.", "Nothing can be learned from them.", "Drop empty rows"),
    "no_end": ("error", "No answer at the end of {rows}.", "A row must end with what the model is to say.",
               "Cut back to the last answer"),
    "role_order": ("error", "Roles in the wrong order in {rows}.", "Chat templates want user and assistant in turns, a system "
                   "message only at the start.", "Put roles in order"),
    "contaminated": ("error", "Something of the evaluation rows in {rows} of the training rows.", "The model would know the test "
                     "before it is taken; its score would say nothing.", "Drop contaminated rows"),
    "secrets": ("error", "Keys or passwords in {rows}.", "The model would repeat them. Revoke them too: whoever had the data knows "
                "them.", "Replace keys and passwords"),
    "contradicting": ("error", "The same answer marked good here and bad there in {rows}.", "Neither mark teaches anything.",
                      "Drop contradictions"),
    "encoding": ("warning", "Broken characters in {rows}: text that was once read in the wrong encoding.", "Most can be mended; better "
                 "still is to export the data again as UTF-8.", "Mend broken characters"),
    "special_tokens": ("warning", "Markers of a chat template, such as <|im_end|>, in {rows}.", "The template adds its own; written "
                       "ones end an answer too early.", "Remove the markers"),
    "repeated": ("warning", "A piece of text that follows itself again and again in {rows}.", "A model learns to get stuck from them.",
                 "Keep one of each piece"),
    "unfinished": ("warning", "An answer that seems cut off in {rows}: nearly all others end with a full stop or the like.",
                   "The model learns to stop in the middle of a sentence.", "Cut back to the last whole sentence"),
    "too_long": ("warning", "Over-long: {rows}.", "What does not fit into the context is cut off in training.", "Drop over-long rows"),
    "duplicate": ("warning", "Another row word for word in {rows}.", "They count twice in training and are learned by heart.",
                  "Drop duplicates"),
    "near_duplicate": ("warning", "Nearly the same as another row: {rows}.", "They crowd out what is rare.", "Drop near duplicates"),
    "conflicting": ("warning", "Another answer to the same question as an earlier row in {rows}.", "Fine where several answers are "
                    "right; else keep the one you want.", "Keep the longest answer to each question"),
    "personal": ("warning", "Personal data in {rows}: e-mail addresses, phone, card or identity numbers, IPs.", "The model may repeat "
                 "them to anybody.", "Replace personal data"),
    "injection": ("warning", "Prompts that try to turn the model against its instructions in {rows}.", "Fine where the answer refuses; "
                  "else the model learns to obey them.", "Drop suspicious prompts"),
    "answer_language": ("info", "An answer in another language than the question in {rows}.", "Right for translations, else rarely "
                        "wanted.", "Drop answers in another language"),
    "languages": ("info", "Another language than most rows in {rows}.", "Right for a model of several languages.",
                  "Keep the main language only"),
}
_NO_REPAIR = {"encoding": False, "special_tokens": False, "whitespace": False, "role_order": False}
_KINDS = ("email", "phone", "card", "iban", "id", "ip")


def diagnosis(code: str, count: int, total: int, examples: list[dict[str, Any]], recipe: Any, main: str) -> dict[str, Any]:
    """A finding as the page shows it."""
    severity, said, hint, title = DIAGNOSES[code]
    rows = "1 row" if count == 1 else f"{count:,} rows"
    fix = fix_of(code, recipe, main)
    return {"code": code, "severity": severity, "count": count, "share": count / max(1, total), "message": said.format(rows=rows),
            "hint": hint, "examples": examples, "fix": fix, "fix_title": title if fix else ""}


def fix_of(code: str, recipe: Any, main: str) -> dict[str, Any] | None:
    """The values of the step that removes what was found."""
    if code in ("encoding", "special_tokens"):
        return {"method": "repair", **_NO_REPAIR, code: True}
    if code in ("no_end", "role_order"):
        return {"method": "repair", **_NO_REPAIR, "role_order": True}
    if code in ("repeated", "unfinished"):
        return {"method": "repair", **_NO_REPAIR, code: True}
    if code == "too_long":
        limit = {"max_tokens": recipe.max_tokens, "tokenizer": recipe.tokenizer} if recipe.max_tokens else \
            {"max_chars": recipe.max_chars}
        return {"method": "filter", "drop_empty": False, **limit}
    if code == "contaminated":
        return {"method": "decontaminate", "ngram": recipe.ngram, "share": recipe.overlap,
                **({"against": recipe.against} if recipe.against else {})}
    if code == "near_duplicate":
        return {"method": "near_dedup", "threshold": recipe.threshold}
    if code == "personal":
        return {"method": "redact", "secret": False, "region": recipe.region}
    if code == "secrets":
        return {"method": "redact", **{kind: False for kind in _KINDS}}
    return {"empty": {"method": "filter"}, "duplicate": {"method": "dedup"},
            "conflicting": {"method": "dedup", "by": "question", "keep": "longest"},
            "contradicting": {"method": "dedup", "by": "conversation", "keep": "agreed"},
            "injection": {"method": "filter", "drop_empty": False, "drop_suspicious": True},
            "answer_language": {"method": "filter", "drop_empty": False, "same_language": True},
            "languages": {"method": "filter", "drop_empty": False, "languages": [main]}}[code]
