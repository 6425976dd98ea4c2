"""One text under several tokenizers: its pieces, what they cost in each language, special tokens, the chat template.

Runs in a probe: it needs transformers.
"""

from __future__ import annotations

from typing import Any

from studio.errors import StudioError
from studio.library import refs

SHOWN = 4000  # tokens sent to the page
MOST = 4  # tokenizers side by side

# The first article of the Universal Declaration of Human Rights (United Nations 1948, in the public domain): the same content in
# each language, so that tokens are comparable between them.
LANGUAGES = {
    "English": "All human beings are born free and equal in dignity and rights. They are endowed with reason and conscience and "
               "should act towards one another in a spirit of brotherhood.",
    "Deutsch": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen begabt und "
               "sollen einander im Geist der Brüderlichkeit begegnen.",
    "Français": "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison et de "
                "conscience et doivent agir les uns envers les autres dans un esprit de fraternité.",
    "Español": "Todos los seres humanos nacen libres e iguales en dignidad y derechos y, dotados como están de razón y "
               "conciencia, deben comportarse fraternalmente los unos con los otros.",
    "Русский": "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом и совестью и должны "
               "поступать в отношении друг друга в духе братства.",
    "العربية": "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق. وقد وهبوا عقلا وضميرا وعليهم أن يعامل بعضهم بعضا بروح الإخاء.",
    "हिन्दी": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है। उन्हें बुद्धि और अन्तरात्मा की देन "
             "प्राप्त है और परस्पर उन्हें भाईचारे के भाव से बर्ताव करना चाहिए।",
    "中文": "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。",
    "日本語": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。人間は、理性と良心とを授けられており、"
           "互いに同胞の精神をもって行動しなければならない。",
}


def compare(text: str, models: list[str], template: bool = False) -> list[dict[str, Any]]:
    """The same text cut by each model's tokenizer.

    Args:
        template: Take the text as a person's turn in the model's chat template, with the start of its answer.

    Returns:
        Per model ``{ref, label, tokens: [{id, text, special}], count, bytes, characters, shown, vocab, specials: [{id, text,
        role}], template, languages: {name: tokens}, words}``; ``words`` is the text that was cut (with the template around
        it), or ``{ref, label, error, hint}`` where it has no tokenizer to show.
    """
    if not models:
        raise StudioError("No model is chosen.", "Choose one to four.", "models")
    return [_one(text, ref, template) for ref in models[:MOST]]


def _one(text: str, ref: str, template: bool) -> dict[str, Any]:
    from studio.trainers import load
    from studio.trainers.preview import pieces

    try:
        model = refs.resolve_model(ref)
        tokenizer = load.tokenizer(model)
    except StudioError as err:
        return {"ref": ref, "label": ref, "error": err.message, "hint": err.hint}
    made: dict[str, Any] = {"ref": ref, "label": model.label, "vocab": len(tokenizer), "error": "", "hint": "",
                            "template": bool(tokenizer.chat_template)}
    words = text
    if template and tokenizer.chat_template:
        turns = [{"role": "user", "content": text}]
        words = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(words, add_special_tokens=not template)["input_ids"]
    special = set(tokenizer.all_special_ids) | {i for i, one in tokenizer.added_tokens_decoder.items() if one.special}
    shown = ids[:SHOWN]
    tokens = [{"id": i, "text": piece, "special": i in special} for i, piece in zip(shown, pieces(tokenizer, shown), strict=True)]
    return made | {"tokens": tokens, "count": len(ids), "shown": len(shown), "words": words, "characters": len(words),
                   "bytes": len(words.encode()), "specials": _specials(tokenizer),
                   "languages": {name: len(tokenizer(said, add_special_tokens=False)["input_ids"])
                                 for name, said in LANGUAGES.items()}}


def _specials(tokenizer: Any) -> list[dict[str, Any]]:
    """Every special token once, with what it is for where the tokenizer says so."""
    roles: dict[str, list[str]] = {}
    for name in ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token"):
        if text := getattr(tokenizer, name, None):
            roles.setdefault(str(text), []).append(name.removesuffix("_token"))
    found = {i: str(one) for i, one in sorted(tokenizer.added_tokens_decoder.items()) if one.special}
    found |= {tokenizer.convert_tokens_to_ids(text): text for text in roles}
    return [{"id": i, "text": text, "role": ", ".join(roles.get(text, []))} for i, text in sorted(found.items())][:64]
