"""Scores by a judge, also one that answers nonsense, and by a reward model."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from studio.datasets import llm_http
from studio.datasets.version import Version
from studio.errors import StudioError
from tests.llm_stand_in import Asked, Reply, StandIn

ROWS = [{"prompt": f"Question {i}?", "completion": f"Answer {i}."} for i in range(12)]


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm_http, "BACKOFF", 0.01)


def marker(asked: Asked) -> str:
    number = int(re.search(r"Answer (\d+)\.", asked.messages[1]["content"])[1])
    return f"It is number {number}, no more.\nMark: {number % 10 + 1}"


def test_every_row_is_marked_and_low_ones_dropped(run_step, jsonl) -> None:
    with StandIn(marker) as server:
        made = run_step("score", jsonl("a.jsonl", ROWS), generator=server.address)
        kept = run_step("score", jsonl("a.jsonl", ROWS), generator=server.address, drop_below=5, keep_reasons=True, rubric="Be kind.")
    assert [item.score for item in made.items()] == [i % 10 + 1 for i in range(12)] and list(made.rows()) == ROWS
    assert [item.score for item in kept.items()] == [5, 6, 7, 8, 9, 10]
    assert dict(next(kept.items()).tags)["why"] == "It is number 4, no more."
    assert "Be kind." in server.requests[-1].messages[1]["content"] and server.requests[0].body["temperature"] == 0
    facts = kept.meta["history"][-1]["facts"]
    assert facts["scored"] == 12 and facts["lowest"] == 1 and facts["highest"] == 10 and facts["usage"]["requests"] == 12
    (reason,) = kept.meta["history"][-1]["reasons"]
    assert (reason["code"], reason["count"]) == ("low_score", 6) and kept.meta["history"][-1]["rows_in"] == 12


def test_a_judge_that_answers_nonsense_leaves_rows_without_a_score(run_step, jsonl) -> None:
    """It is asked three times; then the row stays, without a number, and says why. Nonsense is never a low score."""
    def judge(asked: Asked) -> str | Reply:
        number = int(re.search(r"Answer (\d+)\.", asked.messages[1]["content"])[1])
        if number < 3:
            return "As a language model I love all answers."
        if number == 3:
            return Reply(status=400, raw=b'{"error": {"message": "no"}}')
        if number == 4 and len(asked.messages) < 4:
            return "Mark: eleven"
        return marker(asked)

    with StandIn(judge) as server:
        made = run_step("score", jsonl("a.jsonl", ROWS), generator=server.address, drop_below=5)
    found = {item.row["completion"]: item for item in made.items()}
    assert [found[f"Answer {i}."].score for i in range(4)] == [None] * 4 and found["Answer 4."].score == 5
    assert [dict(found[f"Answer {i}."].tags)["unscored"] for i in (0, 3)] == ["not_in_form", "failed"]
    facts = made.meta["history"][-1]["facts"]
    assert {u["code"]: u["count"] for u in facts["unscored"]} == {"not_in_form": 3, "failed": 1} and facts["scored"] == 8
    again = sum("language model" in json.dumps(r.messages) for r in server.requests)
    assert again == 6  # three rows, two further tries each, shown what was said


def test_nothing_but_nonsense_is_said_aloud(run_step, jsonl, home) -> None:
    from studio import settings
    from studio.jobs import events

    with StandIn(lambda asked: "Bananas.") as server:
        made = run_step("score", jsonl("a.jsonl", ROWS[:3]), generator=server.address)
    assert [item.score for item in made.items()] == [None] * 3
    found, _ = events.read(settings.run_dir(made.run_id) / "events.jsonl", 0)
    (warning,) = [e for e in found if e["e"] == "warning"]
    assert warning["code"] == "nothing_scored" and "Bananas" in warning["hint"]


def test_a_judge_that_likes_everything_the_same_is_doubted(run_step, jsonl) -> None:
    from studio import settings
    from studio.jobs import events

    with StandIn(lambda asked: "Great!\nMark: 10") as server:
        made = run_step("score", jsonl("a.jsonl", ROWS), generator=server.address)
    found, _ = events.read(settings.run_dir(made.run_id) / "events.jsonl", 0)
    assert [e["code"] for e in found if e["e"] == "warning"] == ["same_score"]


def test_pairs_are_scored_by_how_much_better_the_chosen_is(run_step, jsonl) -> None:
    pairs = [{"prompt": "q", "chosen": "Answer 7.", "rejected": "Answer 2."}, {"prompt": "q2", "chosen": "Answer 1.", "rejected": "Answer 5."}]
    with StandIn(marker) as server:
        made = run_step("score", jsonl("p.jsonl", pairs), generator=server.address, drop_below=0)
    assert [item.score for item in made.items()] == [5] and len(server.requests) == 4


def test_plain_texts_have_a_rubric_of_their_own(run_step, jsonl) -> None:
    with StandIn(lambda asked: "Mark: 6") as server:
        made = run_step("score", jsonl("t.jsonl", [{"text": "A story."}]), generator=server.address)
    assert next(made.items()).score == 6 and "worth learning" in server.requests[0].messages[1]["content"]


# ---- reward models


@pytest.fixture(scope="module")
def reward_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random one with the starter's tokenizer and chat template."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

    from studio.library import refs

    folder = tmp_path_factory.mktemp("reward")
    tokenizer = AutoTokenizer.from_pretrained(refs.resolve_model("starter").path)
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                         max_position_embeddings=64, num_labels=1, pad_token_id=tokenizer.pad_token_id)
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_reward_model_scores_every_row(run_step, jsonl, reward_model) -> None:
    """Batched and padded as alone; long rows are cut at their beginning; a pair gets the difference."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    rows = [*ROWS, {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello. " * 60}]},
            {"prompt": "q", "chosen": "Answer 7.", "rejected": "Answer 2."}, {"text": "Just a text."}]
    refs = [jsonl(f"{i}.jsonl", part) for i, part in enumerate((rows[:12], rows[12:13], rows[13:14], rows[14:]))]
    made = run_step("score", run_step("import", sources=refs).ref, by="reward_model", reward_model=str(reward_model), batch_size=4)
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(reward_model).eval(), AutoTokenizer.from_pretrained(reward_model)
    tokenizer.truncation_side = "left"

    def alone(*turns: str) -> float:
        text = tokenizer.apply_chat_template([{"role": ("user", "assistant")[i % 2], "content": t} for i, t in enumerate(turns)], tokenize=False)
        return of_text(text)

    def of_text(text: str) -> float:
        inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=64, return_token_type_ids=False, add_special_tokens=False)
        with torch.inference_mode():
            return model(**inputs).logits.item()

    wanted = [alone(r["prompt"], r["completion"]) for r in ROWS] + [alone("Hi", "Hello. " * 60), alone("q", "Answer 7.") - alone("q", "Answer 2."),
                                                                   of_text((tokenizer.bos_token or "") + "Just a text.")]
    assert [item.score for item in made.items()] == pytest.approx(wanted, abs=1e-4)
    facts = made.meta["history"][-1]["facts"]
    assert facts["cut"] == 1 and facts["scored"] == 15 and len(set(wanted)) == 15
    from studio.library import artifacts

    edges = artifacts.lineage(made.ref.removeprefix("library:"))["edges"]
    assert [edge["parent"] for edge in edges if edge["role"] == "scorer"] == [str(reward_model)]


def test_a_reward_model_without_a_chat_template(run_step, jsonl, reward_model, tmp_path) -> None:
    """It reads question and answer as two texts; a plain text alone."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = tmp_path / "plain"
    tokenizer = AutoTokenizer.from_pretrained(reward_model)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
    AutoModelForSequenceClassification.from_pretrained(reward_model).save_pretrained(folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    rows = run_step("import", sources=[jsonl("a.jsonl", ROWS[:2]), jsonl("b.jsonl", [{"text": "Just a text."}])])
    made = run_step("score", rows.ref, by="reward_model", reward_model=str(folder))
    scores = [item.score for item in made.items()]
    assert len(set(scores)) == 3 and None not in scores


@pytest.mark.parametrize(("config", "word"), [
    ({"architectures": ["LlamaForCausalLM"]}, "writes text"), ({"architectures": ["LlamaForSequenceClassification"], "num_labels": 3}, "3 classes"),
    ({"architectures": ["LlamaForSequenceClassification"], "id2label": {"0": "a", "1": "b"}}, "2 classes")])
def test_what_is_no_reward_model_is_refused_early(home, jsonl, run_step, config, word) -> None:
    from tests.models import make_model

    ref = jsonl("a.jsonl", ROWS[:1])
    with pytest.raises(StudioError, match=word) as caught:
        run_step("score", ref, by="reward_model", reward_model=str(make_model(home / "m", **config)))
    assert caught.value.field == "reward_model"
    for model in ("", "library:none"):
        with pytest.raises(StudioError) as caught:
            run_step("score", ref, by="reward_model", reward_model=model)
        assert caught.value.field == "reward_model"
