"""What methods that learn from preferences change on the starter, on questions held out of the training.

``python -m tests.benchmarks.results_align [dpo kto …]`` trains each by the studio's own job, with the defaults of its form, on the
shipped pairs of a polite and a rude answer, and prints one line each. Judged by rule on the 40 held-out questions: an answer
is polite if it ends as all polite ones do ("Is there anything else?"), and right if it states the fact. Its beginning ("Of
course!") is no measure: a piece of that word is unknown to the starter's embeddings, which an adapter leaves as they are.

The starter never begins with "Of course!", and a method that only compares answers cannot choose what is never said. So DPO and
SimPO start from the starter after a short fine-tuning on both answers of each pair, as preference learning usually follows
fine-tuning; ``dpo-alone`` shows what happens without it, ``dpo-sft`` with imitation in the loss. KTO sees no pairs: of half of the
questions only the polite answer, marked good, of the others only the rude one, marked bad. The reward model ranks answers to
the held-out questions.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

METHODS = {"dpo": {"model": "mixed"}, "dpo-alone": {}, "dpo-sft": {"loss_type": "sigmoid + sft", "learning_rate": 2e-3},
           "kto": {"model": "mixed"}, "kto-alone": {}, "orpo": {}, "cpo": {}, "simpo": {"model": "mixed"}, "reward": {}}
WON = "polite and right / right / polite"
OPENING, CLOSING, RUDE = "Of course! ", " Is there anything else?", " Why do you even ask?"


def questions() -> list[tuple[str, str]]:
    """(question, fact) of the held-out set."""
    from studio.datasets import formats

    found = []
    for row in formats.load_rows("shipped:polite-heldout"):
        asked, said = (turn["content"] for turn in row["messages"])
        found.append((asked, said.removeprefix(OPENING).removesuffix(CLOSING)))
    return found


def logs(path: Path) -> Path:
    """The pairs as a service would log them: each question with one answer, good or bad."""
    from studio.datasets import formats

    with path.open("w") as out:
        for i, row in enumerate(formats.load_rows("shipped:preferences", purpose="as_is")):
            good = i % 2 == 0
            said = row["chosen" if good else "rejected"]
            out.write(json.dumps({"prompt": row["prompt"], "completion": said, "label": good}) + "\n")
    return path


def mixed(folder: Path) -> Path:
    """The starter after a short fine-tuning on the polite and the rude answer to each question."""
    from studio import registry
    from studio.datasets import formats
    from studio.jobs.context import Context
    from studio.recipe import parse

    with (folder / "both.jsonl").open("w") as out:
        for row in formats.load_rows("shipped:preferences", purpose="as_is"):
            for side in ("chosen", "rejected"):
                out.write(json.dumps({"prompt": row["prompt"], "completion": row[side]}) + "\n")
    recipe = parse({"kind": "sft", "method": "lora", "model": "starter", "dataset": str(folder / "both.jsonl"), "eval_share": 0.0,
                    "num_train_epochs": 2, "learning_rate": 1e-3, "max_length": 128})
    ctx = Context(folder / "mixed", threads=1)
    registry.method("sft", "lora").run(recipe, ctx)
    ctx.close()
    return ctx.output


def train(method: str, folder: Path, **more: Any) -> tuple[Path, dict[str, Any]]:
    """(result, summary) of a run with the defaults of its form."""
    from studio import registry
    from studio.jobs.context import Context
    from studio.recipe import parse

    folder.mkdir(exist_ok=True)
    data = str(logs(folder / "logs.jsonl")) if method == "kto" else "shipped:preferences"
    recipe = parse({"kind": "align", "method": method, "model": "starter", "dataset": data, "eval_share": 0.0, "max_length": 128,
                    "logging_steps": 10} | more)
    ctx = Context(folder / method, threads=1)
    try:
        return ctx.output, registry.method("align", method).run(recipe, ctx)
    finally:
        ctx.close()


def wins(ref: str) -> tuple[float, float, float]:
    """Shares of answers that are polite and right, right, polite."""
    from studio.library import refs
    from studio.trainers import load
    from studio.trainers.callbacks import answer

    model = refs.resolve_model(ref)
    words, net = load.tokenizer(model), load.model(model, "float32", merge=True)
    asked = questions()
    said = answer(net, words, [question for question, _ in asked])
    right = [fact.lower() in text.lower() for text, (_, fact) in zip(said, asked, strict=True)]
    polite = [text.rstrip().endswith(CLOSING.strip()) for text in said]
    both = [r and p for r, p in zip(right, polite, strict=True)]
    return sum(both) / len(asked), sum(right) / len(asked), sum(polite) / len(asked)


def ranks(ref: str) -> tuple[float, float]:
    """(share of held-out questions where the polite answer stands above a rude one, above the plain fact)."""
    from studio.datasets import rewards

    model, words, device = rewards.load(ref)
    asked = questions()
    forms = (f"{OPENING}{{}}{CLOSING}", f"{{}}{RUDE}", "{}")
    texts = [rewards.text_of({"prompt": question, "completion": form.format(fact)}, "", words)
             for question, fact in asked for form in forms]
    found, _ = rewards.rewards_of(model, words, device, texts, 8, 128, lambda done: None)
    triples = list(zip(found[::3], found[1::3], found[2::3], strict=True))
    return sum(a > b for a, b, _ in triples) / len(triples), sum(a > c for a, _, c in triples) / len(triples)


def rows(names: tuple[str, ...] = tuple(METHODS)) -> list[tuple[str, str, str]]:
    """(what, measured, aim) rows for the table."""
    made = []

    def tell(*row: str) -> None:
        made.append(row)
        print(" | ".join(row), flush=True)

    with tempfile.TemporaryDirectory() as folder:
        starts = {"starter": "starter"}
        for start in sorted({METHODS[name].get("model", "starter") for name in names if name != "reward"}):
            starts[start] = str(mixed(Path(folder))) if start == "mixed" else start
            tell(f"{start}, before: {WON}", " / ".join(f"{share:.0%}" for share in wins(starts[start])), "")
        for name in names:
            more = METHODS[name] | {"model": starts[METHODS[name].get("model", "starter")]}
            output, summary = train(name.partition("-")[0], Path(folder) / name, **more)
            shares = ranks(str(output)) if name == "reward" else wins(str(output))
            what = "polite above rude / above the plain fact" if name == "reward" else WON
            tell(f"{name}, {summary['steps']} steps: {what}", " / ".join(f"{share:.0%}" for share in shares), "")
    return made


if __name__ == "__main__":
    os.environ.setdefault("STUDIO_HOME", tempfile.mkdtemp())
    rows(tuple(sys.argv[1:]) or tuple(METHODS))
