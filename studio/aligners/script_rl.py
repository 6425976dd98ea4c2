"""``Copy as Python`` for GRPO and RLOO: a plain TRL script with the same losses, its rewards written out as functions.

The script does not validate: the studio's validations draw beside the training, so the losses are the same without.
"""

from __future__ import annotations

import inspect
import re
from collections import Counter
from typing import Any

from studio.aligners import script
from studio.datasets import numeric, verify
from studio.errors import StudioError
from studio.library import refs
from studio.rewards import REWARDS

_TEXT = '''_THINK = re.compile({think!r}, re.DOTALL)
_ANSWER = re.compile({answer!r}, re.DOTALL)


def said(completion):
    return completion if isinstance(completion, str) else completion[-1]["content"]'''

_SHAPE = '''def {name}(completions, {column}=None, **_):
    """{title}."""
    return [{score} for completion, wanted in zip(completions, {column} or [""] * len(completions))]'''

# The score of one answer, by the studio's own rules.
_SCORES = {
    "exact": 'float(final(said(completion)).strip() == wanted.strip()) if wanted else None',
    "number": 'same_number(final(said(completion)), wanted, {tolerance!r}) if wanted else None',
    "regex": 'float(bool(re.search({pattern!r}, said(completion), {flags})))',
    "length": 'in_range({count}, {least}, {most}, {slope})',
}
_HELP = {
    "number": '''def same_number(answer, wanted, tolerance):
    right, found = final_number(wanted), final_number(answer)
    return float(right is not None and found is not None and close(found, right, tolerance))''',
    "length": '''def in_range(size, least, most, slope):
    if not size and least:
        return 0.0
    outside = max(least - size, size - most, 0)
    return 1.0 if not outside else max(0.0, 1 - outside / slope) if slope else 0.0''',
}


def write(method: Any, recipe: Any) -> str:
    """The script of a GRPO or RLOO recipe.

    Raises:
        StudioError: model or data cannot be read, or a reward has no plain function (``rewards``).
    """
    from studio.aligners import data

    model = refs.resolve_model(recipe.model)
    functions, names = _functions(recipe)
    found = data.read(recipe, method.shape)
    template = script.template_of(recipe, model)
    rows = list(data.as_chat(found.train, template))
    head = script.head(method, recipe, model).replace("import math\n", "import re\n", 1)
    train = script.training(method, recipe, model, False).replace(
        "model=model, args=args,", f"model=model, reward_funcs=[{', '.join(names)}], args=args,")
    parts = [head, script.reading(rows, []), script.script._templates(recipe, model, template is not None), functions,
             "train = Dataset.from_list(rows)\nheld = None", script.models(method, recipe, model), train]
    return "\n\n".join(part.strip("\n") for part in parts if part.strip()) + "\n"


def _functions(recipe: Any) -> tuple[str, list[str]]:
    """(code, names) of the reward functions."""
    counts = Counter(values["name"] for values in recipe.rewards)
    used: Counter = Counter()
    names, made, helps = [], [], {}
    for values in recipe.rewards:
        kind = values["name"]
        reward = REWARDS.get(kind)
        options = reward.Options.model_validate({k: v for k, v in values.items() if k != "name"})
        used[kind] += 1
        names.append(f"{kind}_{used[kind]}" if counts[kind] > 1 else kind)
        made.append(_one(names[-1], kind, reward, options))
        helps |= _helps(kind)
    text = _TEXT.format(think=verify._THINK.pattern, answer=verify._ANSWER.pattern)
    return "\n\n\n".join([text, inspect.getsource(verify.final).strip(), *helps.values(), *made]), names


def _helps(kind: str) -> dict[str, str]:
    """Functions that a reward's own calls, by what they are for."""
    found = {}
    if kind == "number":
        source = inspect.getsource(numeric)
        found["numeric"] = re.sub(r"\A.*?from __future__[^\n]*\n+import re\n", "", source, flags=re.DOTALL).strip()
    return found | ({kind: _HELP[kind]} if kind in _HELP else {})


def _one(name: str, kind: str, reward: type, options: Any) -> str:
    """One reward as a function of TRL's shape.

    Raises:
        StudioError: it needs more than plain Python (a model, a server, the sandbox).
    """
    values = options.model_dump()
    if kind == "length":
        counts = {"characters": "len(said(completion))",
                  "tokens": 'len(tokenizer(said(completion), add_special_tokens=False)["input_ids"])'}
        if options.unit not in counts:
            raise StudioError("Words are counted by a rule of the studio's own, for all languages, which is no short "
                              "function.",
                              "Count characters or tokens for the script.", "rewards")
        values["count"] = counts[options.unit]
    elif kind == "regex":
        from studio.rewards.regex import FORMS

        values["pattern"] = FORMS[options.form] if options.form else options.pattern
        if not values["pattern"]:
            raise StudioError("The pattern differs from row to row.", "Write one pattern for the script.", "rewards")
        values["flags"] = "re.MULTILINE | re.IGNORECASE" if options.ignore_case else "re.MULTILINE"
    elif kind not in _SCORES:
        raise StudioError(f"'{reward.title}' needs more than a short function.", "Only rewards that compare, count or "
                          "look for a pattern can be written into a script.", "rewards")
    column = values.get("column") or "answer"
    return _SHAPE.format(name=name, column=column, title=reward.title, score=_SCORES[kind].format(**values))
