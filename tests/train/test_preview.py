"""What the model will see is shown before the start, by the code that training uses."""

from __future__ import annotations

import json
import shutil

import pytest

from studio.errors import StudioError
from studio.trainers.preview import preview
from tests.train.conftest import run, series

PLAIN = ("{% for m in messages %}{{ '[' + m.role + '] ' + m.content + '<|im_end|>' }}{% endfor %}"
         "{% if add_generation_prompt %}{{ '[assistant] ' }}{% endif %}")


def _values(tiny, chats, **more):
    return {"kind": "sft", "method": "lora", "model": str(tiny), "dataset": str(chats), "max_length": 256, **more}


def _text(seen, trained):
    return "".join(t["text"] for t in seen["tokens"] if t["trained"] is trained)


def test_answers_are_what_is_learned(tiny, chats):
    seen = preview(_values(tiny, chats), 4)
    assert "".join(t["text"] for t in seen["tokens"]) == seen["rendered"]
    answer = seen["rendered"].split("assistant\n")[1].removesuffix("\n")
    assert _text(seen, True) == answer and answer.endswith("<|im_end|>")
    assert seen["flags"] == [] and (seen["rows"], seen["held"]) == (54, 6) and seen["truncated"] == 0
    assert seen["length"] == seen["kept"] == len(seen["tokens"]) and 0 < seen["trained"] < seen["kept"]
    assert 0 < seen["lengths"]["p50"] <= seen["lengths"]["p90"] <= seen["lengths"]["p99"] <= seen["lengths"]["max"]
    everything = preview(_values(tiny, chats, assistant_only_loss=False), 4)
    assert [t["trained"] for t in everything["tokens"]] == [False] + [True] * (everything["kept"] - 1)
    assert preview(_values(tiny, chats), 10**6)["index"] == seen["rows"] - 1


def test_cut_samples_are_flagged(tiny, chats):
    whole = preview(_values(tiny, chats), 0)
    cut = preview(_values(tiny, chats, max_length=whole["length"] - 4), 0)
    assert [f["code"]
            for f in cut["flags"]] == ["truncated"] and cut["kept"] == cut["length"] - 4 and cut["truncated"] > 0
    gone = preview(_values(tiny, chats, max_length=8), 0)
    assert [f["code"] for f in gone["flags"]] == ["nothing-trained"] and gone["trained"] == 0


@pytest.fixture
def other(tiny, tmp_path):
    """A model whose template has no marks and is unknown to TRL."""
    folder = tmp_path / "other"
    shutil.copytree(tiny, folder)
    (folder / "chat_template.jinja").write_text(PLAIN)
    return folder


def test_a_template_without_marks(other, chats, tmp_path, monkeypatch):
    from tests.train.test_script import execute

    seen = preview(_values(other, chats), 0)
    assert _text(seen, True) == seen["rendered"].split("[assistant] ")[1]
    values = _values(other, chats, max_steps=5, logging_steps=1, bf16="off", per_device_train_batch_size=4)
    run(values, tmp_path / "run")
    history = execute(values, tmp_path, monkeypatch)
    ours = series(tmp_path / "run", "loss")
    assert [ours[h["step"]] for h in history if "loss" in h] == pytest.approx([h["loss"] for h in history
                                                                               if "loss" in h], abs=1e-4)


def test_a_template_whose_end_is_not_learned(other, chats):
    (other / "chat_template.jinja").write_text(PLAIN.replace("<|im_end|>", "\\n"))
    assert [f["code"] for f in preview(_values(other, chats), 0)["flags"]] == ["no-end-token"]


def test_a_template_that_refuses(other, chats):
    (other / "chat_template.jinja").write_text("{{ raise_exception('no chats please') }}")
    with pytest.raises(StudioError, match="no chats please") as caught:
        preview(_values(other, chats), 0)
    assert caught.value.field == "dataset"


def test_completions_after_a_conversation(tiny, tmp_path):
    """Answers inside the prompt are somebody else's: only the completion is learned."""
    path = tmp_path / "rows.jsonl"
    rows = [{"prompt": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi there"},
                        {"role": "user", "content": f"Say {i}"}], "completion": [{"role": "assistant",
                                                                                  "content": f"It is {i}"}]}
            for i in range(6)]
    path.write_text("\n".join(map(json.dumps, rows)))
    seen = preview(_values(tiny, path, eval_share=0.0), 2)
    assert _text(seen, True) == "It is 2<|im_end|>" and "Hi there" in _text(seen, False)


def test_odd_characters_join_up(tiny, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"messages": [{"role": "user", "content": "日本 😀 <b>x</b>"},
                                             {"role": "assistant", "content": "naïve ☾ 👩‍🚀 ok"}]}) + "\n")
    seen = preview(_values(tiny, path, eval_share=0.0), 0)
    assert "naïve ☾ 👩‍🚀 ok" in _text(seen, True) and "日本 😀 <b>x</b>" in _text(seen, False)


def test_scratch_shows_its_own_tokenizer(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("\n\n".join(f"The {c} ball is in the garden." for c in ("red", "blue", "green", "white")))
    seen = preview({"kind": "pretrain", "method": "scratch", "dataset": str(path), "vocab_size": 300}, 0)
    assert seen["rendered"].endswith("garden.<|im_end|>") and seen["trained"] == seen["kept"] - 1
