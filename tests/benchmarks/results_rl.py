"""What learning from rewards or a teacher does to the starter: ``python -m tests.benchmarks.results_rl [NAME…]``.

No answer that is asked for was trained on. Sums: the 32 sums up to 20 that the starter's corpus leaves out; half of
them are practised with a reward for the right number alone, no answer is ever shown. Politeness: 40 questions of
``polite-heldout``.
"""

from __future__ import annotations

import json
import os
import random
import re
import sys
import tempfile
import time
from pathlib import Path

POLITE = r"\AOf course!.*Is there anything else\?\s*\Z"


def run(values: dict, folder: Path) -> tuple[dict, Path]:
    """A recipe in this process; (summary, folder of what it made)."""
    from studio.jobs.context import Context
    from studio.recipe import parse
    from studio.registry import method

    recipe, ctx = parse(values), Context(folder, threads=1)
    chosen = method(recipe.kind, recipe.method)
    chosen.check(recipe)
    return chosen.run(recipe, ctx), ctx.output


def opened(folder: Path | None):
    from studio.library import refs
    from studio.starter import score

    base = refs.resolve_model("starter").source
    adapter = folder if folder and (folder / "adapter_config.json").exists() else None
    return score.load(base if adapter or folder is None else folder, adapter)


def sums_left_out() -> list[str]:
    from studio.starter import skills

    rng = random.Random(0)
    found = sorted({skills.sums(rng, True).question for _ in range(3000)})
    random.Random(7).shuffle(found)
    return found


def right(question: str, text: str) -> bool:
    a, b = map(int, re.findall(r"\d+", question))
    said = re.findall(r"\d+", text)
    return bool(said) and int(said[-1]) == a + b


def ask(folder: Path | None, questions: list[str], draws: int = 8) -> tuple[list[str], list[str]]:
    """(greedy answers, ``draws`` drawn answers each, one after the other)."""
    import torch

    from studio.starter import score

    model, tokenizer = opened(folder)
    chats = [[{"role": "user", "content": q}] for q in questions]
    greedy = score.answer(model, tokenizer, chats, 40)
    torch.manual_seed(0)
    made = tokenizer([tokenizer.apply_chat_template(c, add_generation_prompt=True, tokenize=False) for c in chats],
                     return_tensors="pt", padding=True, add_special_tokens=False, return_token_type_ids=False)
    with torch.inference_mode():
        out = model.generate(**made, do_sample=True, temperature=1.0, top_k=0, max_new_tokens=40,
                             num_return_sequences=draws,
                             pad_token_id=tokenizer.pad_token_id)
    return greedy, tokenizer.batch_decode(out[:, made["input_ids"].shape[1]:], skip_special_tokens=True)


def score_sums(folder: Path | None, questions: list[str]) -> str:
    greedy, drawn = ask(folder, questions)
    hits = [right(q, drawn[8 * i + j]) for i, q in enumerate(questions) for j in range(8)]
    return f"greedy {sum(map(right, questions, greedy))}/{len(questions)}, drawn {sum(hits) / len(hits):.0%}"


def sums(method: str, home: Path) -> None:
    """GRPO or RLOO on sums: practised, not practised, and taught to the starter long ago."""
    from studio.starter import skills

    left_out = sums_left_out()
    practised, others = left_out[::2], left_out[1::2]
    rng = random.Random(1)
    taught = sorted({skills.sums(rng, False).question for _ in range(400)})[:24]
    data = home / "sums.jsonl"
    data.write_text("".join(json.dumps({"prompt": q, "completion": str(sum(map(int, re.findall(r"\d+", q))))}) + "\n"
                            for q in practised))
    for name, questions in (("practised", practised), ("not practised", others), ("taught before", taught)):
        print(f"  starter, {name}: {score_sums(None, questions)}", flush=True)
    own = {"num_generations": 8, "beta": 0.0 if method == "grpo" else 0.02}
    summary, folder = run({"kind": "align", "method": method, "dataset": str(data), "rewards": [{"name": "number"}],
                           "max_steps": 48, "per_device_train_batch_size": 64, "max_completion_length": 12,
                           "eval_share": 0, "learning_rate": 2e-3, "logging_steps": 10} | own, home / method)
    for name, questions in (("practised", practised), ("not practised", others), ("taught before", taught)):
        print(f"  {method}, {name}: {score_sums(folder, questions)}", flush=True)
    print(f"  {summary}", flush=True)


def grpo(home: Path) -> None:
    sums("grpo", home)


def rloo(home: Path) -> None:
    sums("rloo", home)


def held_out() -> list[str]:
    from studio.library import refs

    path = refs.resolve_dataset("shipped:polite-heldout").path
    return [json.loads(line)["messages"][0]["content"] for line in path.open()]


def score_polite(folder: Path | None) -> str:
    questions = held_out()
    greedy, drawn = ask(folder, questions, 4)
    polite = [sum(bool(re.search(POLITE, text)) for text in texts) / len(texts) for texts in (greedy, drawn)]
    return f"polite: greedy {polite[0]:.0%}, drawn {polite[1]:.0%}"


def tuned(home: Path, steps: int) -> Path:
    folder = home / f"polite-{steps}"
    if not (folder / "output" / "adapter_config.json").exists():
        run({"kind": "sft", "method": "lora", "dataset": "shipped:polite", "max_steps": steps, "learning_rate": 2e-3,
             "eval_share": 0, "save_steps": 1000, "per_device_train_batch_size": 8}, folder)
    return folder / "output"


def online_dpo(home: Path) -> None:
    """From a starter that is polite now and then, with a pattern as its reward."""
    start = tuned(home, 12)
    print(f"  start: {score_polite(start)}", flush=True)
    summary, folder = run({"kind": "align", "method": "online_dpo", "model": str(start), "dataset": "shipped:polite",
                           "rewards": [{"name": "regex", "pattern": POLITE}], "max_steps": 60, "eval_share": 0,
                           "max_new_tokens": 32, "learning_rate": 5e-4, "logging_steps": 10}, home / "online_dpo")
    print(f"  online_dpo: {score_polite(folder)}\n  {summary}", flush=True)


def distilled(method: str, home: Path) -> None:
    """A polite starter teaches the plain one on questions whose given answers are not polite."""
    teacher = tuned(home, 100)
    print(f"  teacher: {score_polite(teacher)}\n  starter: {score_polite(None)}", flush=True)
    data = home / "plain.jsonl"
    with data.open("w") as out:
        from studio.library import refs

        for line in refs.resolve_dataset("shipped:polite").path.open():
            turns = json.loads(line)["messages"]
            plain = turns[1]["content"].removeprefix("Of course! ").removesuffix(" Is there anything else?")
            out.write(json.dumps({"messages": [turns[0], {"role": "assistant", "content": plain}]}) + "\n")
    summary, folder = run({"kind": "align", "method": method, "teacher_model": str(teacher), "dataset": str(data),
                           "max_steps": 100, "eval_share": 0, "lmbda": 0.7, "seq_kd": method == "gkd",
                           "learning_rate": 2e-3,
                           "per_device_train_batch_size": 8, "logging_steps": 10, "max_length": 128}
                          | ({"max_new_tokens": 32} if method == "gkd" else {"max_completion_length": 32}),
                          home / method)
    print(f"  {method}: {score_polite(folder)}\n  {summary}", flush=True)


def gkd(home: Path) -> None:
    distilled("gkd", home)


def gold(home: Path) -> None:
    distilled("gold", home)


ALL = (grpo, rloo, online_dpo, gkd, gold)


def main(names: list[str]) -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as made:
        home = Path(os.environ.setdefault("STUDIO_HOME", made)) / "results"
        home.mkdir(parents=True, exist_ok=True)
        for part in ALL:
            if not names or part.__name__ in names:
                began = time.process_time()
                print(part.__name__, flush=True)
                part(home)
                print(f"  {time.process_time() - began:.0f} s of processor time", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
