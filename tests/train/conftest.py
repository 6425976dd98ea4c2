"""A random model small enough to train in a second, data for it, and runs without the job layer."""

from __future__ import annotations

import functools
import gc
import json
import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")

QUESTIONS = [("What colour is grass?", "Grass is green."), ("What colour is the sky?", "The sky is blue."),
             ("How many legs has a dog?", "A dog has 4 legs."), ("What does a cow say?", "A cow says moo."),
             ("What is 2 plus 3?", "2 plus 3 is 5."), ("Where do fish live?", "Fish live in water.")]


@pytest.fixture(autouse=True)
def _home(home):
    """Every test here has a workspace of its own."""


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A random Llama of about 100,000 weights with a trained tokenizer and the ChatML template."""
    import transformers

    from studio.trainers import tokenizer

    folder = tmp_path_factory.mktemp("tiny")
    rows = [{"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]} for q, a in QUESTIONS]
    words = tokenizer.train(rows * 4, 400, 256)
    transformers.set_seed(1)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=len(words), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=1024, tie_word_embeddings=True, eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id, bos_token_id=None))
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


@pytest.fixture
def chats(tmp_path) -> Path:
    """60 short chats as JSONL."""
    path = tmp_path / "chats.jsonl"
    with path.open("w") as out:
        for i in range(60):
            q, a = QUESTIONS[i % len(QUESTIONS)]
            out.write(json.dumps({"messages": [{"role": "user", "content": f"{q} ({i})"},
                                               {"role": "assistant", "content": a}]}) + "\n")
    return path


def events(folder: Path, kind: str) -> list[dict]:
    """Events of one type, metric points and samples of abandoned attempts left out."""
    found: list[dict] = []
    for line in (Path(folder) / "events.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["e"] == "resume":
            found = [e for e in found if e.get("step", 0) <= event["step"]]
        if event["e"] == kind:
            found.append(event)
    return found


def series(folder: Path, name: str) -> dict[int, float]:
    """step -> value of a metric."""
    return {e["step"]: e["values"][name] for e in events(folder, "metric") if name in e["values"]}


@functools.lru_cache(maxsize=1)
def _settle() -> None:
    """Takes all that the imports made out of the collector's sight, which each training would walk over for a third of a second."""
    import studio.trainers.loop  # noqa: F401

    gc.collect()
    gc.freeze()


def run(values: dict, folder: Path, resume: bool = False, stop_at: int | None = None):
    """Runs a recipe in this process; returns (summary, context)."""
    from studio.jobs.context import Context
    from studio.recipe import parse
    from studio.registry import method

    class Here(Context):
        def progress(self, done, total, eta=None):
            super().progress(done, total, eta)
            if stop_at is not None and done >= stop_at:
                self.request_stop()

    _settle()
    recipe = parse(values)
    ctx = Here(folder, threads=1, resume=resume)
    chosen = method(recipe.kind, recipe.method)
    chosen.check(recipe)
    return chosen.run(recipe, ctx), ctx
