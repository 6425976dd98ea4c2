"""The small comparison: the same numbers as transformers by hand, the same rows for all, and clean stops and refusals."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from studio import settings
from studio.errors import StudioError
from studio.evals import compare
from studio.recipe import parse
from studio.registry import method
from tests.train.conftest import events, run


def values(models: list, data: Path | str, **more) -> dict:
    return {"kind": "eval", "method": "compare", "models": [str(m) for m in models], "dataset": str(data), "samples": 10,
            "max_new_tokens": 8, "per_device_eval_batch_size": 4} | more


@pytest.fixture(scope="session")
def adapter(tmp_path_factory) -> Path:
    """A LoRA on the starter that changes what it says; the tiny model is too raw to say anything."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("adapter")
    torch.manual_seed(3)
    made = get_peft_model(AutoModelForCausalLM.from_pretrained(settings.STARTER), LoraConfig(
        task_type="CAUSAL_LM", r=2, lora_alpha=1, init_lora_weights=False, target_modules=["v_proj", "down_proj"]))
    made.save_pretrained(folder)
    AutoTokenizer.from_pretrained(settings.STARTER).save_pretrained(folder)
    return folder


def by_hand(net, words, rows: list[dict]) -> tuple[float, list[str]]:
    """(mean loss of the answers' tokens, greedy answers), one row at a time and with transformers alone."""
    lost = count = 0
    said = []
    for row in rows:
        whole = words.apply_chat_template(row["messages"], tokenize=False)
        head = words.apply_chat_template(row["messages"][:-1], tokenize=False, add_generation_prompt=True)
        ids = words(whole, add_special_tokens=False, return_tensors="pt")["input_ids"]
        start = words(head, add_special_tokens=False, return_tensors="pt")["input_ids"]
        labels = ids.clone()
        labels[:, :start.shape[1]] = -100
        end = ids[0].tolist().index(words.eos_token_id, start.shape[1])
        labels[:, end + 1:] = -100  # a line break of the template stands behind the end token
        with torch.no_grad():
            n = int((labels[:, 1:] != -100).sum())
            lost, count = lost + float(net(input_ids=ids, labels=labels).loss) * n, count + n
            out = net.generate(start, max_new_tokens=8, do_sample=False, pad_token_id=words.pad_token_id)
        said.append(words.decode(out[0, start.shape[1]:], skip_special_tokens=True).strip())
    return lost / count, said


def test_the_numbers_are_those_of_transformers(adapter, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    summary, ctx = run(values(["starter", adapter], "shipped:polite-heldout"), tmp_path / "run")
    lines = [json.loads(line) for line in (ctx.output / "answers.jsonl").read_text().splitlines()]
    every = [json.loads(line) for line in (settings.DATASETS / "polite-heldout.jsonl").read_text().splitlines()]
    asked = {row["messages"][0]["content"]: row for row in every}
    words = AutoTokenizer.from_pretrained(settings.STARTER)
    whole = [AutoModelForCausalLM.from_pretrained(settings.STARTER, dtype=torch.float32) for _ in range(2)]
    nets = [whole[0], PeftModel.from_pretrained(whole[1], adapter)]
    assert [line["model"] for line in summary["table"]] == ["starter", str(adapter)]
    questions = [[line["prompt"] for line in lines if line["model"] == str(m)] for m in ("starter", adapter)]
    assert questions[0] == questions[1] and len(set(questions[0])) == 10
    for net, line, ref in zip(nets, summary["table"], ("starter", adapter), strict=True):
        mine = [one for one in lines if one["model"] == str(ref)]
        loss, said = by_hand(net.eval(), words, [asked[one["prompt"]] for one in mine])
        assert line["loss"] == pytest.approx(loss, rel=1e-4) and line["perplexity"] == pytest.approx(math.exp(loss), rel=1e-3)
        assert [one["answer"] for one in mine] == said and all(said)
        right = [float(one["answer"] == one["expected"]) for one in mine]
        assert line["exact"] == pytest.approx(sum(right) / 10) and line["tokens_per_second"] > 0
        assert [one["rewards"]["exact"] for one in mine] == right
    assert summary["table"][0]["loss"] != summary["table"][1]["loss"]
    [made] = ctx.artifacts
    assert made["kind"] == "file" and [p["role"] for p in made["parents"]] == ["scored", "scored", "data"]
    assert {e["model"] for e in events(ctx.run_dir, "sample")} == {"Starter", adapter.name}


def test_means_have_their_error(adapter, chats, tmp_path):
    length = {"name": "length", "unit": "characters", "least": 0, "most": 0, "slope": 90}
    summary, ctx = run(values([adapter], chats, rewards=[length]), tmp_path / "run")
    given = [json.loads(line)["rewards"]["length"] for line in (ctx.output / "answers.jsonl").open()]
    mean = sum(given) / len(given)
    error = math.sqrt(sum((g - mean) ** 2 for g in given) / (len(given) - 1) / len(given))
    assert summary["table"][0]["length"] == pytest.approx(mean, rel=1e-4) and error > 0
    assert summary["table"][0]["length_stderr"] == pytest.approx(error, rel=1e-4)


def test_plain_texts_have_a_perplexity_only(tiny, tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("\n\n".join(f"Grass is green and the sky is blue, said dog number {i}." for i in range(12)))
    summary, _ = run(values([tiny], path, samples=6), tmp_path / "run")
    [line] = summary["table"]
    assert line["perplexity"] > 1 and line["bits_per_byte"] > 0 and "exact" not in line and line["tokens_per_second"] is None


def test_more_rows_at_once_change_nothing(tmp_path):
    one, _ = run(values(["starter"], "shipped:sums", per_device_eval_batch_size=1), tmp_path / "one")
    all_, _ = run(values(["starter"], "shipped:sums", per_device_eval_batch_size=10), tmp_path / "all")
    assert one["table"][0]["loss"] == pytest.approx(all_["table"][0]["loss"], rel=1e-5)
    same = [[json.loads(line)["answer"] for line in (tmp_path / name / "output" / "answers.jsonl").open()]
            for name in ("one", "all")]
    assert same[0] == same[1] and all(same[0])


def test_a_stopped_comparison_goes_on_where_it_was(tiny, chats, tmp_path, monkeypatch):
    loaded = []
    real = compare.ready
    more = {"samples": 4}
    monkeypatch.setattr(compare, "ready", lambda model, trust=False: (loaded.append(model.label), real(model, trust))[1])
    whole, _ = run(values([tiny, "starter"], chats, **more), tmp_path / "whole")
    stopped, ctx = run(values([tiny, "starter"], chats, **more), tmp_path / "cut", stop_at=1)
    assert [line["label"] for line in stopped["table"]] == [tiny.name]
    loaded.clear()
    again, _ = run(values([tiny, "starter"], chats, **more), tmp_path / "cut", resume=True)
    assert loaded == ["Starter"]
    timeless = [[{k: v for k, v in line.items() if k != "tokens_per_second"} for line in s["table"]] for s in (whole, again)]
    assert timeless[0] == timeless[1]


def test_other_tokenizers_are_told(tiny, chats, tmp_path):
    _, ctx = run(values([tiny, "starter"], chats, samples=4, rewards=[]), tmp_path / "run")
    assert [e["code"] for e in events(ctx.run_dir, "warning")] == ["other-tokenizers"]


@pytest.mark.parametrize(("models", "word"), [([], "No model is chosen"), (["starter", "starter"], "listed twice"),
                                              (["library:gone"], "nothing called")])
def test_refused_before_the_start(models, word, chats):
    recipe = parse(values(models, chats))
    with pytest.raises(StudioError, match=word) as caught:
        method("eval", "compare").check(recipe)
    assert caught.value.field == "models"


def test_a_gguf_file_is_refused_in_plain_words(tmp_path, chats):
    folder = tmp_path / "small-gguf"
    folder.mkdir()
    (folder / "model.gguf").write_bytes(b"GGUF" + bytes(60))
    with pytest.raises(StudioError, match="(?i)gguf") as caught:
        compare.opened(str(folder))
    assert caught.value.field == "models"


def test_rows_marked_bad_are_not_measured():
    rows = [{"prompt": "a?", "completion": "b", "label": True}, {"prompt": "a?", "completion": "c", "label": False},
            {"prompt": "d?", "chosen": "e", "rejected": "f", "tags": {"level": "2"}}, {"text": "plain"}]
    items = compare.scored(rows)
    assert [item.text for item in items] == ["b", "e", "plain"]
    assert [item.asked and item.asked["answer"] for item in items] == ["b", "e", None]
    assert items[1].asked["level"] == "2"


def test_estimate_counts_the_largest_model(tiny):
    small = method("eval", "compare").estimate(parse(values([tiny], "shipped:sums")))
    large = method("eval", "compare").estimate(parse(values([tiny, "starter"], "shipped:sums")))
    assert large.memory > small.memory
