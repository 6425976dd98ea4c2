"""What the trainers do with models and data, on a model of 100,000 weights."""

from __future__ import annotations

import json
import math
import shutil

import pytest

from studio.errors import StudioError
from tests.train.conftest import events, run, series


def _values(tiny, chats, **more):
    return {"kind": "sft", "method": "lora", "model": str(tiny), "dataset": str(chats), "max_length": 64,
            "num_train_epochs": 4, "per_device_train_batch_size": 4, "logging_steps": 2, "learning_rate": 1e-2, **more}


def _answers(folder, prompt):
    from transformers import AutoTokenizer

    from studio.trainers import load
    from studio.library import refs
    from studio.trainers.callbacks import answer

    return answer(load.model(refs.resolve_model(str(folder)), "float32"), AutoTokenizer.from_pretrained(folder),
                  [prompt])[0]


def test_lora_reports_and_registers(tiny, chats, tmp_path):
    summary, ctx = run(_values(tiny, chats, sample_prompts=["What colour is grass?"], name="my model"),
                       tmp_path / "run")
    assert summary["eval_loss"] < summary["eval_loss_before"] - 0.7
    assert 0 < summary["trained_parameters"] < summary["parameters"]
    for name in ("loss", "learning_rate", "grad_norm", "num_tokens", "tokens_per_second", "mean_token_accuracy",
                 "entropy"):
        points = series(tmp_path / "run", name)
        assert len(points) >= summary["steps"] // 2 and all(math.isfinite(v) for v in points.values()), name
    assert list(series(tmp_path / "run", "eval_loss"))[0] == 0  # the model as it came
    assert {e["step"] for e in events(tmp_path / "run", "sample")} == set(series(tmp_path / "run", "eval_loss"))
    assert events(tmp_path / "run", "progress")[-1]["done"] == summary["steps"]
    assert [(a["kind"], a["name"]) for a in ctx.artifacts] == [("adapter", "my model")]
    assert ctx.artifacts[0]["parents"] == [{"ref": str(tiny), "role": "base"}, {"ref": str(chats), "role": "data"}]
    assert (ctx.output / "adapter_model.safetensors").exists() and not list(ctx.output.glob("*.bin"))
    card = (ctx.output / "README.md").read_text()
    assert f"{summary['eval_loss']:.4f}" in card and "# my model" in card and "learning_rate: 0.01" in card
    assert card.startswith("---\n")


def test_metrics_are_those_of_trl(tiny, chats, tmp_path, monkeypatch):
    """Our accuracy and entropy, computed at logging steps only, are what TRL's slower loss gives."""
    from studio.trainers import loop

    values = _values(tiny, chats, logging_steps=1, max_steps=5, bf16="off")
    run(values, tmp_path / "plain")
    monkeypatch.setattr(loop, "PLAIN_LOSS_BYTES", 0)
    run(values, tmp_path / "tiled")
    for name in ("loss", "mean_token_accuracy", "entropy", "eval_loss", "eval_entropy", "num_tokens"):
        a, b = series(tmp_path / "plain", name), series(tmp_path / "tiled", name)
        assert a.keys() == b.keys() and a
        assert all(a[s] == pytest.approx(b[s], abs=2e-5) for s in a), name


def test_adapter_trained_further_and_merged(tiny, chats, tmp_path):
    _, first = run(_values(tiny, chats), tmp_path / "first")
    more, second = run(_values(first.output, chats, num_train_epochs=2), tmp_path / "second")
    assert events(tmp_path / "second", "warning")[0]["code"] == "adapter-continued"
    assert more["eval_loss_before"] == pytest.approx(series(tmp_path / "first",
                                                            "eval_loss")[more_step(tmp_path / "first")], abs=0.02)
    summary, merged = run({"kind": "merge", "method": "adapter", "model": str(second.output)}, tmp_path / "merged")
    assert merged.artifacts[0]["kind"] == "model" and merged.artifacts[0]["parents"][0] == {"ref": str(second.output),
                                                                                            "role": "adapter"}
    assert not (merged.output / "adapter_config.json").exists()
    for prompt in ("What colour is grass?", "What does a cow say?"):
        assert _answers(merged.output, prompt) == _answers(second.output, prompt)
    with pytest.raises(StudioError, match="whole model already") as caught:
        run({"kind": "merge", "method": "adapter", "model": str(merged.output)}, tmp_path / "again")
    assert caught.value.field == "model"


def more_step(folder):
    from studio.jobs.context import checkpoints

    losses = series(folder, "eval_loss")
    return min((s for s in losses
                if (folder / "checkpoints" / f"checkpoint-{s}") in checkpoints(folder / "checkpoints")),
               key=losses.get)


def test_full_keeps_the_stored_precision(tiny, chats, tmp_path):
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    half = tmp_path / "half"
    shutil.copytree(tiny, half)
    AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.bfloat16).save_pretrained(half)
    summary, ctx = run(_values(half, chats, method="full", learning_rate=2e-3), tmp_path / "run")
    assert summary["eval_loss"] < summary["eval_loss_before"] - 1.0
    assert {t.dtype for t in load_file(ctx.output / "model.safetensors").values()} == {torch.bfloat16}
    newest = sorted(ctx.checkpoints.glob("checkpoint-*"))[0]
    assert {t.dtype for t in load_file(newest / "model.safetensors").values()} == {torch.float32}  # resume stays exact


def test_best_is_kept_and_early_stopping(tiny, chats, tmp_path):
    """Memorising 10 samples: the validation loss turns, the run ends, and the result is the turning point."""
    few = tmp_path / "few.jsonl"
    few.write_text("".join(chats.read_text().splitlines(keepends=True)[:10]))
    values = _values(tiny, few, eval_dataset=str(chats), num_train_epochs=60, early_stopping_patience=2,
                     learning_rate=3e-2, eval_steps=5)
    summary, ctx = run(values, tmp_path / "run")
    losses = {s: v for s, v in series(tmp_path / "run", "eval_loss").items() if s}
    assert summary["steps"] < summary["of_steps"] and summary["kept_step"] == min(losses,
                                                                                  key=losses.get) < summary["steps"]
    assert summary["eval_loss"] == pytest.approx(min(losses.values()))
    import torch
    from safetensors.torch import load_file

    kept = load_file(ctx.checkpoints / f"checkpoint-{summary['kept_step']}" / "adapter_model.safetensors")
    made = load_file(ctx.output / "adapter_model.safetensors")
    assert kept.keys() == made.keys() and all(torch.equal(kept[k], made[k]) for k in kept)


def test_loss_that_runs_away(tiny, chats, tmp_path, monkeypatch):
    """A loss that is no number ends the run with advice, and the point itself is shown."""
    from studio.trainers.loop import StudioTrainer

    def broken(self, *args, real=StudioTrainer.compute_loss, **kwargs):
        loss = real(self, *args, **kwargs)
        return loss * float("nan") if self.model.training and self.state.global_step >= 7 else loss

    monkeypatch.setattr(StudioTrainer, "compute_loss", broken)
    with pytest.raises(StudioError, match="ran away") as caught:
        run(_values(tiny, chats, save_steps=4), tmp_path / "run")
    assert caught.value.field == "learning_rate"
    assert events(tmp_path / "run", "metric")[-1]["values"]["loss"] == "NaN"


def test_data_faults(tiny, tmp_path):
    rows = [{"messages": [{"role": "user", "content": f"What is {i}?"},
                          {"role": "assistant", "content": f"It is {i}."}]} for i in range(20)]
    rows += [{"messages": [{"role": "user", "content": "word " * 200}, {"role": "assistant", "content": "Long."}]},
             {"messages": [{"role": "user", "content": "Short?"}, {"role": "assistant", "content": "word " * 200}]}]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(r) for r in rows))
    summary, _ = run(_values(tiny, path, eval_share=0.0, max_steps=2, max_length=60), tmp_path / "run")
    said = {e["code"]: e["message"] for e in events(tmp_path / "run", "warning")}
    assert "2 of 22 samples are cut at 60 tokens" in said["truncated"] and "1 of 22" in said["rows-dropped"]
    assert summary["samples"] == 21 and "eval_loss" not in summary
    with pytest.raises(StudioError, match="Nothing is left") as caught:
        run(_values(tiny, path, eval_share=0.0, max_length=8), tmp_path / "none")
    assert caught.value.field == "max_length"


def test_templates(tiny, chats, tmp_path):
    """A base without a template gets ChatML, or is refused; without an end token it is refused."""
    from transformers import AutoTokenizer

    bare = tmp_path / "bare"
    shutil.copytree(tiny, bare)
    (bare / "chat_template.jinja").unlink()
    summary, ctx = run(_values(bare, chats, max_steps=3), tmp_path / "run")
    assert "chat-template-added" in {e["code"] for e in events(tmp_path / "run", "warning")}
    assert "im_start" in AutoTokenizer.from_pretrained(ctx.output).chat_template
    with pytest.raises(StudioError, match="no chat template") as caught:
        run(_values(bare, chats, chat_template="keep"), tmp_path / "kept")
    assert caught.value.field == "model"
    with pytest.raises(StudioError, match="set to none") as caught:
        run(_values(tiny, chats, chat_template="none"), tmp_path / "none")
    assert caught.value.field == "chat_template"


def test_text_and_completions(tiny, tmp_path):
    """Raw completions train the completion and its end only; plain text trains all."""
    from studio.trainers.preview import preview

    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("\n".join(json.dumps({"prompt": f"Question {i}: ", "completion": f"answer {i}"})
                               for i in range(8)))
    seen = preview({"kind": "sft", "method": "lora", "model": str(tiny), "dataset": str(pairs),
                    "chat_template": "none"}, 0)
    assert "".join(t["text"] for t in seen["tokens"] if t["trained"]).endswith("<|im_end|>")
    assert "".join(t["text"] for t in seen["tokens"] if not t["trained"]).startswith("Question")
    text = tmp_path / "text.txt"
    text.write_text("The moon was round.\n\nThe sun was warm.\n\nThe lake was deep.\n")
    seen = preview({"kind": "sft", "method": "full", "model": str(tiny), "dataset": str(text)}, 0)
    assert [t["trained"] for t in seen["tokens"]] == [False] + [True] * (len(seen["tokens"]) - 1)
    summary, _ = run({"kind": "pretrain", "method": "continued", "model": str(tiny), "dataset": str(text),
                      "max_steps": 4, "max_length": 32, "logging_steps": 1, "eval_share": 0.0,
                      "sample_prompts": ["The moon"]}, tmp_path / "run")
    losses = list(series(tmp_path / "run", "loss").values())
    assert summary["steps"] == 4 and losses[-1] < losses[0]


def test_refused_before_the_start(tiny, chats, tmp_path):
    for values, field in (({"max_length": 2000}, "max_length"), ({"model": "nowhere"}, "model"),
                          ({"dataset": ""}, "dataset"), ({"eval_dataset": "shipped:nothing"}, "eval_dataset"),
                          ({"extra": {"adam_betta1": 0.9}}, None), ({"learning_rate": math.nan}, "learning_rate"),
                          ({"target_modules": "no_such_layer"}, "target_modules"),
                          ({"optim": "adamw_imaginary"}, "optim"), ({"lr_scheduler_type": "zigzag"},
                                                                    "lr_scheduler_type")):
        with pytest.raises(StudioError) as caught:
            run(_values(tiny, chats, max_steps=1) | values, tmp_path / "run")
        assert field is None or caught.value.field == field, (values, caught.value)
        assert caught.value.hint or caught.value.field


def test_from_scratch(tmp_path):
    """Tokenizer and model from mixed text and chats; saved in half precision; loads as an ordinary model."""
    rows = [{"text": f"{name} has a {colour} ball. It is in the garden."} for name in ("Tom", "Ann", "Sam")
            for colour in ("red", "blue", "green", "white")]
    rows += [{"messages": [{"role": "user", "content": f"What is {a} plus {b}?"},
                           {"role": "assistant", "content": f"{a + b}."}]} for a in range(6) for b in range(6)]
    for row, extra in zip(rows, range(len(rows)), strict=True):
        row["n"] = extra
    path = tmp_path / "mixed.jsonl"
    path.write_text("\n".join(json.dumps(r) for r in rows))
    values = {"kind": "pretrain", "method": "scratch", "dataset": str(path), "vocab_size": 320, "hidden_size": 64,
              "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
              "max_length": 32, "num_train_epochs": 6, "per_device_train_batch_size": 4, "eval_share": 0.1,
              "save_dtype": "bfloat16", "sample_prompts": ["What is 1 plus 2?"]}
    summary, ctx = run(values, tmp_path / "run")
    assert summary["eval_loss"] < summary["eval_loss_before"] - 1.0
    assert summary["samples"] + summary["validation_samples"] == len(rows)  # text and chats from one file
    from studio.library import modelinfo
    from studio.recipe import parse

    facts = modelinfo.describe(ctx.output)
    assert facts["dtype"] == "BF16" and facts["context"] == 32 and facts["chat_template"]
    assert facts["parameters"] == parse(values).parameters(facts["vocab_size"]) == summary["parameters"]
    from transformers import AutoTokenizer

    words = AutoTokenizer.from_pretrained(ctx.output)
    assert words.tokenize("12") == ["1", "2"] and words.decode(words("héllo ☾")["input_ids"]) == "héllo ☾"
    part, _ = run(values, tmp_path / "part", stop_at=summary["steps"] // 2)
    assert part["steps"] < summary["steps"]
    run(values, tmp_path / "part", resume=True)
    assert series(tmp_path / "part", "loss") == pytest.approx(series(tmp_path / "run", "loss"), abs=1e-6)


def test_stop_at_once_still_gives_a_model(tiny, chats, tmp_path):
    summary, ctx = run(_values(tiny, chats), tmp_path / "run", stop_at=1)
    assert summary["steps"] == 1 and ctx.artifacts and (ctx.output / "adapter_model.safetensors").exists()
