"""Whether a merge keeps the skills of both parents, measured on the starter: ``python -m tests.benchmarks results_merge``.

One tune practises sums up to 20, among them 16 of the 32 that the starter was never taught and gets half right; another learns the
polite style, with the sums of the corpus among its data so that it keeps them. Each is made twice: of all weights at a low rate, for merges of
whole models, and as a LoRA at its usual rate, for merges of adapters. Each way of merging gets its usual setting, none is searched for.
Asked, greedily: those 32 sums (right if the last number of the answer is), practised and never seen apart, and the 40 held-out polite
questions (polite if the answer ends as taught, "Is there anything else?"; the fact right or not).
``python -m tests.benchmarks.results_merge FOLDER`` keeps the tunes in a folder and finds them there again.
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

TUNED = {"kind": "sft", "method": "lora", "model": "starter", "eval_share": 0.0, "r": 32, "learning_rate": 1e-3, "max_length": 128,
         "bf16": "off", "sample_prompts": [], "gradient_accumulation_steps": 1, "logging_steps": 50}
ALL = {key: value for key, value in TUNED.items() if key != "r"} | {"method": "full", "per_device_train_batch_size": 8}
TUNES = {"sums, all weights": ("sums", ALL | {"learning_rate": 2e-4, "num_train_epochs": 10}),
         "polite, all weights": ("polite", ALL | {"learning_rate": 1e-4, "num_train_epochs": 8}),
         "sums, adapter": ("sums", TUNED | {"per_device_train_batch_size": 8, "num_train_epochs": 10}),
         "polite, adapter": ("polite", TUNED | {"per_device_train_batch_size": 4, "num_train_epochs": 3})}
TAUGHT = 64  # sums of the corpus that are practised beside the new ones, so that those are not forgotten
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


def sums() -> tuple[list[Any], list[Any], list[Any]]:
    """(sums never taught that are practised, others never taught, sums of the corpus)."""
    from studio.starter import skills

    rng = random.Random(0)
    drawn = [{(one := skills.sums(rng, held)).question: one for _ in range(3000)} for held in (True, False)]
    new: dict[tuple[str, ...], list[Any]] = {}
    for question in sorted(drawn[0]):  # 2 + 8 and 8 + 2 stay on one side
        new.setdefault(tuple(sorted(re.findall(r"\d+", question))), []).append(drawn[0][question])
    pairs = [new[key] for key in sorted(new)]
    random.Random(7).shuffle(pairs)
    taught = [drawn[1][question] for question in sorted(drawn[1])]
    random.Random(7).shuffle(taught)
    practised, others = ([one for pair in pairs[side::2] for one in pair] for side in (0, 1))
    return practised, others, taught[:TAUGHT]


def work(values: dict[str, Any], folder: Path) -> tuple[dict[str, Any], Path]:
    """(summary, output) of a recipe, run as a worker would."""
    from tests.train.conftest import run

    summary, ctx = run(values, folder)
    ctx.close()
    return summary, ctx.output


def tunes(home: Path) -> dict[str, str]:
    """The four parents by name; trained once a folder."""
    from studio.datasets import formats

    practised, _, taught = sums()
    polite = [row["messages"] for row in formats.load_rows("shipped:polite", {})]
    files = {"sums": [_chat(one) for one in practised + taught], "polite": polite + [_chat(one) for one in taught]}
    made = {}
    for name, (data, values) in TUNES.items():
        kept = home / name.replace(", ", "-").replace(" ", "-")
        if not kept.exists():
            file = home / f"{data}.jsonl"
            file.write_text("".join(json.dumps({"messages": turns}) + "\n" for turns in files[data]))
            summary, output = work(values | {"dataset": str(file)}, kept.with_name(kept.name + "-run"))
            print(f"{name}: {summary['steps']} steps, {summary['seconds']:.0f} s, loss {summary['train_loss']:.3f}", flush=True)
            shutil.copytree(output, kept)
        made[name] = str(kept)
    return made


def _chat(one: Any) -> list[dict[str, str]]:
    return [{"role": "user", "content": one.question}, {"role": "assistant", "content": one.answer}]


def asked(ref: str) -> tuple[float, ...]:
    """Shares of the questions: practised sums right, other new sums right, answers polite, facts right."""
    from studio.datasets import formats
    from studio.evals import compare
    from studio.library import refs
    from studio.trainers.callbacks import answer

    words, net = compare.ready(refs.resolve_model(ref))
    found = []
    for items in sums()[:2]:
        said = answer(net, words, [one.question for one in items], new_tokens=40)
        found.append(sum(re.findall(r"\d+", one.answer)[-1:] == re.findall(r"\d+", text)[-1:]
                         for one, text in zip(items, said, strict=True)) / len(items))
    rows = [row["messages"] for row in formats.load_rows("shipped:polite-heldout", {})]
    begin, end = "Of course!", "Is there anything else?"
    said = answer(net, words, [turns[0]["content"] for turns in rows], new_tokens=40)
    facts = [turns[1]["content"].removeprefix(begin).removesuffix(end).strip().lower() in text.lower()
             for turns, text in zip(rows, said, strict=True)]
    return *found, sum(text.endswith(end) for text in said) / len(rows), sum(facts) / len(rows)


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
    prompts = ["What is 4 + 13? | What is 12 + 5? | What is 6 + 9?", "How many legs does a bee have? | What colour is grass?"]
    for count in (1, 2):
        yield f"experts, {count} a token", {"kind": "merge", "method": "moe", "base_model": "starter", "experts": [one, two],
                                            "positive_prompts": prompts, "experts_per_token": count}


def rows(keep: Path | None = None) -> list[tuple[str, str, str]]:
    """(what, measured, aim) rows for the table: practised sums / other new sums / polite / facts right."""
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
            parents = tunes(home)
            tell("starter: practised sums / other new sums / polite / facts right", "starter")
            for name, ref in parents.items():
                tell(f"parent: {name}", ref)
            one, two, *adapters = parents.values()
            for number, (what, recipe) in enumerate(recipes(one, two, tuple(adapters))):
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
