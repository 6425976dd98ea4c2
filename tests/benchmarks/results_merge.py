"""Whether a merge keeps the skills of both parents, measured on the starter: ``python -m tests.benchmarks results_merge``.

One LoRA learns sums of two-digit numbers, which the starter was never taught, the other the polite style; both are also folded
into whole models. Each way of merging gets its usual setting, none is searched for. Asked, greedily: 50 sums of pairs of numbers
that were in no training row (right if the last number of the answer is), and the 40 held-out polite questions (polite if the
answer begins and ends as taught; the fact right or not). ``python -m tests.benchmarks.results_merge FOLDER`` keeps the two
adapters in a folder and finds them there again.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TUNED = {"kind": "sft", "method": "lora", "model": "starter", "eval_share": 0.0, "r": 32, "learning_rate": 3e-3, "max_length": 128,
         "bf16": "off", "sample_prompts": [], "gradient_accumulation_steps": 1, "logging_steps": 50}
SUMS, POLITE = {"per_device_train_batch_size": 16, "num_train_epochs": 6}, {"per_device_train_batch_size": 4, "num_train_epochs": 3}
ROWS, ASKED = 1000, 50
EACH = {"weight": 1.0}
# method -> parameters of each model, of the merge
WHOLE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "linear": ({"weight": 0.5}, {}), "slerp": ({}, {"t": 0.5}), "nuslerp": ({"weight": 0.5}, {}),
    "multislerp": ({"weight": 0.5}, {}), "karcher": ({}, {}), "task_arithmetic": (EACH, {}),
    "ties": (EACH | {"density": 0.5}, {"normalize": False}), "dare_linear": (EACH | {"density": 0.7}, {}),
    "dare_ties": (EACH | {"density": 0.7}, {"normalize": False}),
    "della": (EACH | {"density": 0.7, "epsilon": 0.15}, {"normalize": False}),
    "breadcrumbs": (EACH | {"density": 0.9, "gamma": 0.01}, {}), "sce": ({}, {"select_topk": 0.5}), "model_stock": ({}, {})}
UNBASED = ("linear", "nuslerp", "multislerp", "karcher")
ADAPTERS: dict[str, dict[str, Any]] = {
    "cat": {}, "linear": {}, "svd": {}, "ties": {"density": 0.5}, "ties_svd": {"density": 0.5}, "dare_linear": {"density": 0.7},
    "magnitude_prune": {"density": 0.5}}


def sums(count: int, held: bool, seed: int) -> list[Any]:
    """Different sums, of pairs that are held out or not."""
    from studio.starter import skills

    rng, found = random.Random(seed), {}
    while len(found) < count:
        item = skills.harder_sums(rng, held)
        found[item.question] = item
    return list(found.values())


def work(values: dict[str, Any], folder: Path) -> tuple[dict[str, Any], Path]:
    """(summary, output) of a recipe, run as a worker would."""
    from tests.train.conftest import run

    summary, ctx = run(values, folder)
    ctx.close()
    return summary, ctx.output


def tunes(home: Path) -> tuple[Path, Path]:
    """The two adapters; trained once a folder."""
    made = []
    for name, data, more in (("Sums", "", SUMS), ("Polite", "shipped:polite", POLITE)):
        kept = home / name
        if not kept.exists():
            if not data:
                data = str(home / "sums.jsonl")
                Path(data).write_text("".join(json.dumps({"prompt": one.question, "completion": one.answer}) + "\n"
                                              for one in sums(ROWS, False, 1)))
            summary, output = work(TUNED | more | {"dataset": data}, home / f"{name}-run")
            print(f"{name}: {summary['steps']} steps, {summary['seconds']:.0f} s, loss {summary['train_loss']:.3f}", flush=True)
            shutil.copytree(output, kept)
        made.append(kept)
    return made[0], made[1]


def asked(ref: str) -> tuple[float, float, float]:
    """Shares of the held-out questions: sums right, answers polite, facts right."""
    from studio.datasets import formats
    from studio.evals import compare
    from studio.library import refs
    from studio.trainers.callbacks import answer

    words, net = compare.ready(refs.resolve_model(ref))
    items = sums(ASKED, True, 2)
    said = answer(net, words, [one.question for one in items], new_tokens=40)
    right = [re.findall(r"\d+", one.answer)[-1:] == re.findall(r"\d+", text)[-1:] for one, text in zip(items, said, strict=True)]
    rows = [row["messages"] for row in formats.load_rows("shipped:polite-heldout", {})]
    begin, end = "Of course!", "Is there anything else?"
    said = answer(net, words, [turns[0]["content"] for turns in rows], new_tokens=40)
    polite = [text.startswith(begin) and text.endswith(end) for text in said]
    facts = [turns[1]["content"].removeprefix(begin).removesuffix(end).strip().lower() in text.lower()
             for turns, text in zip(rows, said, strict=True)]
    return sum(right) / len(items), sum(polite) / len(rows), sum(facts) / len(rows)


def recipes(one: str, two: str, adapters: tuple[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(what, recipe) of every merge."""
    for method, (each, shared) in WHOLE.items():
        models = [{"model": ref} | ({"parameters": each} if each else {}) for ref in (one, two)]
        config = {"merge_method": method, "models": models, "dtype": "float32"} | ({"parameters": shared} if shared else {})
        if method not in UNBASED:
            config["base_model"] = one if method == "slerp" else "starter"
        yield method, {"kind": "merge", "method": "mergekit", "config": config, "random_seed": 1}
    for way, more in ADAPTERS.items():
        yield f"adapters, {way}", {"kind": "merge", "method": "adapters", "adapters": list(adapters), "combination_type": way} | more
    prompts = ["What is 47 + 31? | What is 12 + 56? | What is 64 + 15?", "How many legs does a bee have? | What colour is grass?"]
    for count in (1, 2):
        yield f"experts, {count} a token", {"kind": "merge", "method": "moe", "base_model": "starter", "experts": [one, two],
                                            "positive_prompts": prompts, "experts_per_token": count}


def rows(keep: Path | None = None) -> list[tuple[str, str, str]]:
    """(what, measured, aim) rows for the table: sums right / polite / facts right."""
    import torch

    from studio.errors import StudioError
    from studio.trainers import load

    torch.set_num_threads(1)
    load.quiet()
    made = []

    def tell(what: str, ref: str) -> None:
        made.append((what, " / ".join(f"{share:.0%}" for share in asked(ref)), ""))
        print(" | ".join(made[-1][:2]), flush=True)

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        home = keep or folder / "tunes"
        home.mkdir(parents=True, exist_ok=True)
        before = os.environ.get("STUDIO_HOME")
        os.environ["STUDIO_HOME"] = str(folder)
        try:
            adapters = tuple(map(str, tunes(home)))
            tell("starter: sums right / polite / facts right", "starter")
            whole = []
            for name, adapter in zip(("sums", "polite"), adapters, strict=True):
                whole.append(str(work({"kind": "merge", "method": "adapter", "model": adapter}, folder / f"whole-{name}")[1]))
                tell(f"parent, {name}", whole[-1])
            for number, (what, recipe) in enumerate(recipes(*whole, adapters)):
                began = time.perf_counter()
                try:
                    output = work(recipe, folder / str(number))[1]
                except StudioError as err:
                    print(f"{what}: {err}", flush=True)
                    made.append((what, "refused", ""))
                    continue
                tell(f"{what} ({time.perf_counter() - began:.1f} s)", str(output))
                shutil.rmtree(output, ignore_errors=True)
        finally:
            os.environ.pop("STUDIO_HOME", None)
            if before is not None:
                os.environ["STUDIO_HOME"] = before
    return made


if __name__ == "__main__":
    rows(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else None)
