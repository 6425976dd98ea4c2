"""Deduplication by meaning, with a small static model made here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from studio.datasets import embedding
from studio.errors import StudioError

SAME = {"car": "automobile", "big": "large", "quick": "fast", "doctor": "physician", "begin": "start"}
WORDS = [f"w{i}" for i in range(400)] + [word for pair in SAME.items() for word in pair] + ["the", "is", "my"]


@pytest.fixture
def model(home: Path) -> Path:
    """One vector a word; words of the same meaning have nearly the same."""
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer, models, pre_tokenizers

    chance = np.random.default_rng(0)
    table = chance.normal(size=(len(WORDS) + 1, 64)).astype(np.float32)
    for one, other in SAME.items():
        table[WORDS.index(other) + 1] = table[WORDS.index(one) + 1] + 0.05 * chance.normal(size=64)
    folder = home / "static"
    folder.mkdir()
    save_file({"embeddings": table}, folder / "model.safetensors")
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0} | {word: i for i, word in enumerate(WORDS, 1)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"model_type": "model2vec", "normalize": True}))
    return folder


def test_vectors(model):
    made = embedding.StaticModel(model).embed(["car w1", "automobile w1", "w1 car nonsense", "w7 w8 w9", "nonsense", ""])
    assert np.allclose(np.linalg.norm(made, axis=1), [1, 1, 1, 1, 0, 0], atol=1e-6)
    assert made[0] @ made[1] > 0.99 and np.allclose(made[0], made[2]) and made[0] @ made[3] < 0.5


def test_rows_of_the_same_meaning_are_left_out(run_step, jsonl, model):
    chance = np.random.default_rng(1)
    rows = [{"text": " ".join(chance.choice(WORDS[:400], 9)) + f" {list(SAME)[i % 5]}"} for i in range(60)]
    again = [{"text": row["text"].replace(word, SAME[word])} for row in rows[:20] for word in SAME if f" {word}" in row["text"]]
    made = run_step("embedding_dedup", jsonl("a.jsonl", rows + again), model=str(model), keep="first")
    assert len(again) == 20 and list(made.rows()) == rows
    (first, *_) = [row for batch in made.batches("dropped") for row in batch.to_pylist()]
    assert first["reason"] == "same_meaning" and "like row 1" in first["detail"]
    assert run_step("near_dedup", "a.jsonl", threshold=0.9).count() > 60, "which letters alone do not show"


def test_many_rows_are_compared_in_clusters(model, monkeypatch):
    """Recall within clusters stays near that of comparing all, and nothing unlike is dropped."""
    chance = np.random.default_rng(2)
    base = chance.normal(size=(3000, 64)).astype(np.float32)
    rows = np.concatenate([base, base[:600] + 0.1 * chance.normal(size=(600, 64)).astype(np.float32)])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    truth, _ = embedding.duplicates(rows, 0.95, np.arange(3600))
    monkeypatch.setattr(embedding, "EXACT", 100)
    monkeypatch.setattr(embedding, "CLUSTER", 300)
    found, cosine = embedding.duplicates(rows, 0.95, np.arange(3600))
    assert (truth >= 0).sum() >= 590 and (found >= 0).sum() >= 0.95 * (truth >= 0).sum()
    assert set(np.flatnonzero(found >= 0)) <= set(np.flatnonzero(truth >= 0))
    hit = np.flatnonzero(found >= 0)
    assert np.allclose(np.einsum("ij,ij->i", rows[hit], rows[found[hit]]), cosine[hit], atol=1e-5)


@pytest.mark.parametrize(("where", "word"), [("", "No embedding model"), ("nowhere", "There is no"), ("static/tokenizer.json", "is a file"),
                                             ("empty", "model.safetensors is missing")])
def test_it_says_plainly_what_it_needs(run_step, jsonl, model, home, where, word):
    (home / "empty").mkdir()
    with pytest.raises(StudioError, match=word) as caught:
        run_step("embedding_dedup", jsonl("a.jsonl", [{"text": "hello"}]), model=where)
    assert caught.value.field == "model" and caught.value.hint


def test_another_kind_of_model_is_refused(run_step, jsonl):
    from studio import settings

    with pytest.raises(StudioError, match="static embeddings"):
        run_step("embedding_dedup", jsonl("a.jsonl", [{"text": "hello"}]), model=str(settings.STARTER))
