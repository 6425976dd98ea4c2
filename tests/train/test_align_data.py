"""Data of alignment: converted where nothing is lost, counted where something is cut, shown as the model will see them."""

from __future__ import annotations

import json

import pytest

from studio.aligners import cut, data, kto
from studio.errors import StudioError
from studio.library import refs
from studio.recipe import parse
from studio.registry import method
from studio.trainers import load
from studio.trainers.preview import preview
from tests.train import align


@pytest.fixture
def pairs(tmp_path):
    return align.pairs(tmp_path / "pairs.jsonl")


@pytest.fixture
def rated(tmp_path):
    """Marked answers: to three questions a good and a bad one, to nine only a good one."""
    path = tmp_path / "rated.jsonl"
    with path.open("w") as out:
        for i in range(12):
            out.write(json.dumps({"prompt": f"Question {i}?", "completion": f"Right {i}.", "label": True}) + "\n")
            if i < 3:
                out.write(json.dumps({"prompt": f"Question {i}?", "completion": f"Wrong {i}.", "label": False}) + "\n")
    return path


def _read(model, path, name, **more):
    recipe = parse(align.values(model, path, name, **more))
    return data.read(recipe, method("align", name).shape)


def test_pairs_of_marked_answers(tiny, rated):
    """Good and bad answers to a question are paired before the split parts them; few of them are told."""
    found = _read(tiny, rated, "dpo", eval_share=0.34)
    made = found.train + found.held
    assert sorted((row["prompt"], row["chosen"], row["rejected"]) for row in made) == [
        (f"Question {i}?", f"Right {i}.", f"Wrong {i}.") for i in range(3)]
    assert [code for code, *_ in found.warnings] == ["few-pairs"] and "3 pairs" in found.notes[0]


def test_marked_answers_of_pairs(tiny, pairs):
    """Both halves of a pair stay on one side, and no batch is made of the two halves of one pair."""
    found = _read(tiny, pairs, "kto")
    assert (len(found.train), len(found.held)) == (20, 4) and "taken apart" in found.notes[0]
    questions = [{row["prompt"] for row in part} for part in (found.train, found.held)]
    assert not questions[0] & questions[1] and len(questions[1]) == 2
    together = sum(a["prompt"] == b["prompt"] for a, b in zip(found.train, found.train[1:], strict=False))
    assert together < 5  # ten in the order of the file
    again = _read(tiny, pairs, "kto")
    assert again.train == found.train and again.train != _read(tiny, pairs, "kto", seed=7).train


def test_marked_messages(tiny, tmp_path):
    """The layout of TRL's own sets for KTO: question and answer are lists of messages."""
    path = tmp_path / "chats.jsonl"
    rows = [{"prompt": [{"role": "user", "content": f"Question {i}?"}],
             "completion": [{"role": "assistant", "content": f"Yes {i}."}], "label": i % 2 == 0} for i in range(4)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = _read(tiny, path, "kto", eval_share=0)
    assert sorted(found.train, key=str) == sorted(rows, key=str)


def test_weights_that_balance(tiny, rated, tmp_path):
    recipe = parse(align.values(tiny, rated, "kto"))
    notes = method("align", "kto").estimate(recipe).notes
    assert any("12 good and 3 bad answers: 'Weight of bad answers' 4 would balance them." == note for note in notes)
    assert kto.balance(12, 3, recipe.model_copy(update={"undesirable_weight": 4.0})) == ""
    assert kto.balance(10, 10, recipe) == "" and "'Weight of good answers' 3" in kto.balance(5, 15, recipe)
    good = tmp_path / "good.jsonl"
    good.write_text("".join(line for line in rated.open() if '"label": true' in line))
    with pytest.raises(StudioError, match="needs both") as caught:
        method("align", "kto").check(parse(align.values(tiny, good, "kto")))
    assert caught.value.field == "dataset"


def test_what_a_cut_costs(tiny, tmp_path):
    """A prompt that fills the length, answers that are the same behind the cut, answers that are shortened: each is counted."""
    words = load.tokenizer(refs.resolve_model(str(tiny)))
    long = "Grass is green. " * 8
    rows = [{"prompt": "What is it?", "chosen": "Yes.", "rejected": "No."},
            {"prompt": long, "chosen": "Yes.", "rejected": "No."},
            {"prompt": "What is it?", "chosen": f"{long}A", "rejected": f"{long}B"}]
    rows = list(data.as_chat(rows, words.chat_template))
    kept, loss = cut.fit(rows, "pairs", words, 40)
    assert (loss.rows, loss.left_out, loss.cut, loss.same) == (3, 1, 1, 1) and kept == [rows[0], rows[2]]
    assert [code for code, *_ in loss.warnings("pairs", 40)] == ["rows-dropped", "truncated", "same-answers"]
    assert cut.fit(rows, "pairs", words, 40, whole=True)[0] == [rows[0]]
    assert cut.sample(rows[0], "pairs", words).length == len(words.apply_chat_template(
        rows[0]["prompt"] + rows[0]["chosen"], tokenize=True, return_dict=True)["input_ids"])
    path = tmp_path / "long.jsonl"
    other = rows[1] | {"chosen": [{"role": "assistant", "content": "Aye."}]}
    path.write_text(json.dumps(rows[1]) + "\n" + json.dumps(other) + "\n")
    from tests.train.conftest import run

    with pytest.raises(StudioError, match="Nothing is left") as caught:
        run(align.values(tiny, path, "dpo", max_length=16, eval_share=0), tmp_path / "run")
    assert caught.value.field == "max_length"


def test_tokens_are_those_of_the_trainer(tiny, pairs):
    """The studio counts with the very tokens that TRL makes."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    ref = refs.resolve_model(str(tiny))
    words, model = load.tokenizer(ref), load.model(ref, "float32")
    rows = list(data.as_chat(_read(tiny, pairs, "dpo", eval_share=0).train, words.chat_template))
    table = DPOTrainer(model, args=DPOConfig(output_dir=str(pairs.parent), use_cpu=True, bf16=False, report_to="none"),
                       train_dataset=Dataset.from_list(rows), processing_class=words).train_dataset
    for row, theirs in zip(rows, table, strict=True):
        ours = cut.sample(row, "pairs", words)
        assert [ours.prompt, *ours.answers] == [theirs["prompt_ids"], theirs["chosen_ids"], theirs["rejected_ids"]]


def test_both_sides_are_shown(tiny, pairs):
    seen = preview(align.values(tiny, pairs, "dpo"), 1)
    better, worse = seen["sides"]
    assert (better["title"], worse["title"]) == ("Better answer", "Worse answer") and seen["flags"] == []
    assert "".join(t["text"] for t in better["tokens"]) == seen["rendered"]
    said = "".join(t["text"] for t in worse["tokens"] if t["trained"])
    assert said.startswith("Go away.<|im_end|>")
    assert "Go away" in "".join(t["text"] for t in worse["tokens"] if t["differs"]) and "<|im_end|>" not in "".join(
        t["text"] for t in worse["tokens"] if t["differs"])
    assert not any(t["differs"] for t in better["tokens"] if not t["trained"])
    short = preview(align.values(tiny, pairs, "reward", max_length=16), 0)
    assert [flag["code"] for flag in short["flags"]] == ["rows-dropped", "nothing-trained"]
    single = preview(align.values(tiny, pairs, "kto"), 0)["sides"]
    assert len(single) == 1 and single[0]["title"] in ("Good answer", "Bad answer")


def test_estimate_counts_both_sides_and_the_copy(tiny, pairs):
    def made(name, **more):
        return method("align", name).estimate(parse(align.values(tiny, pairs, name, **more)))

    assert made("dpo").steps == 5 and made("kto").steps == 10
    copied, alone = made("dpo", train="full"), made("dpo", train="full", precompute_ref_log_probs=True)
    parameters = refs.resolve_model(str(tiny)).meta["parameters"]
    assert copied.memory - alone.memory == parameters * 4


def test_an_estimate_never_fails_on_data_of_another_shape(pairs, tiny):
    """A shape that is not read before the start, and rows that are not of it: nothing is known, and nothing breaks."""
    for name in ("prm", "dpo", "kto", "orpo", "reward"):
        assert method("align", name).estimate(parse(align.values(tiny, pairs, name))) is not None
    recipe = parse({"kind": "align", "method": "prm", "model": str(tiny), "dataset": "shipped:polite"})
    assert method("align", "prm").estimate(recipe).steps is None
