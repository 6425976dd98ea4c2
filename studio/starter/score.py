"""Scores a model on the held-out questions of the starter world: `python -m studio.starter.score MODEL_DIR`."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import corpus


def load(model_dir: str | Path, adapter: str | Path | None = None) -> tuple[Any, Any]:
    """The model (float32, CPU, with the adapter merged in) and its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    if adapter:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    return model.eval(), AutoTokenizer.from_pretrained(model_dir)


def answer(model: Any, tokenizer: Any, chats: Sequence[list[corpus.Message]], max_new_tokens: int = 60,
           batch: int = 64) -> list[str]:
    """Greedy answers to the chats, in their order."""
    import torch

    tokenizer.padding_side = "left"
    prompts = [tokenizer.apply_chat_template(c, add_generation_prompt=True, tokenize=False) for c in chats]
    # Prompts of like length share a batch: less padding, same answers.
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    answers = [""] * len(prompts)
    for start in range(0, len(order), batch):
        part = order[start:start + batch]
        inputs = tokenizer([prompts[i] for i in part], return_tensors="pt", padding=True, add_special_tokens=False,
                           return_token_type_ids=False)
        with torch.inference_mode():
            out = model.generate(**inputs, do_sample=False, max_new_tokens=max_new_tokens,
                                 pad_token_id=tokenizer.pad_token_id)
        texts = tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1]:], skip_special_tokens=True)
        for i, text in zip(part, texts, strict=True):
            answers[i] = text
    return answers


def held_out_loss(model: Any, tokenizer: Any, seed: int, rows: int = 500, max_length: int = 512
                  ) -> tuple[float, float]:
    """Mean loss (nats per token) over held-out rows of the corpus, each alone in its context, and its perplexity."""
    import torch

    total, tokens = 0.0, 0
    for row in corpus.rows(seed, rows, held=True):
        if "text" in row:
            text = str(row["text"]) + tokenizer.eos_token
        else:
            text = tokenizer.apply_chat_template(row["messages"], tokenize=False)
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"][:, :max_length]
        with torch.inference_mode():
            logits = model(input_ids=ids).logits[0, :-1]
        total += torch.nn.functional.cross_entropy(logits.float(), ids[0, 1:], reduction="sum").item()
        tokens += ids.shape[1] - 1
    return total / tokens, math.exp(total / tokens)


def report(model_dir: str | Path, seed: int = 7, per_skill: int = 100, adapter: str | Path | None = None
           ) -> dict[str, Any]:
    """Held-out loss, perplexity, the accuracy of each taught and untaught skill (0..1) and the first wrong answers."""
    model, tokenizer = load(model_dir, adapter)
    loss, perplexity = held_out_loss(model, tokenizer, seed)
    questions = corpus.held_out(seed, per_skill, untaught=True)
    answers = answer(model, tokenizer, [q.messages for q in questions])
    wrong: dict[str, list[dict[str, str]]] = {}
    for said, question in zip(answers, questions, strict=True):
        if said.strip() != question.answer and len(wrong.setdefault(question.skill, [])) < 3:
            wrong[question.skill].append(
                {"question": question.messages[-1]["content"], "expected": question.answer, "answered": said})
    accuracy = corpus.score(answers, questions)
    return {
        "seed": seed,
        "loss": round(loss, 4),
        "perplexity": round(perplexity, 3),
        "questions": {skill: sum(q.skill == skill for q in questions) for skill in accuracy},
        "accuracy": {skill: round(value, 3) for skill, value in accuracy.items()},
        "wrong": wrong,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; prints a table, or JSON with `--json`."""
    parser = argparse.ArgumentParser(description="Score a model on held-out questions of the starter world.")
    parser.add_argument("model", help="folder of the model")
    parser.add_argument("--adapter", help="folder of a PEFT adapter for it")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--per-skill", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    result = report(args.model, args.seed, args.per_skill, args.adapter)
    if args.json:
        print(json.dumps(result, indent=2))
        return 0
    print(f"held-out loss {result['loss']}  perplexity {result['perplexity']}")
    print(f"{'skill':14} {'questions':>9} {'accuracy':>9}")
    for skill, value in result["accuracy"].items():
        mark = "  (not taught)" if skill in corpus.skills.UNTAUGHT else ""
        print(f"{skill:14} {result['questions'][skill]:9d} {value:9.1%}{mark}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
