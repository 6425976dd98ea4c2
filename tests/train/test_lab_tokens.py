"""The tokenizer lab: pieces that join to the text, counts of the tokenizer itself, templates and special tokens."""

from __future__ import annotations

import pytest

from studio.errors import StudioError
from studio.lab import tokens

TEXT = "Hello   world!\n\tnaïve 你好 🙂 def f(a): return a"


def test_pieces_join_to_the_text_and_ids_are_the_tokenizers_own(tiny):
    from transformers import AutoTokenizer

    own = AutoTokenizer.from_pretrained(tiny)
    found, starter = tokens.compare(TEXT, [str(tiny), "starter"])
    assert [one["id"] for one in found["tokens"]] == own(TEXT)["input_ids"]
    assert "".join(one["text"] for one in found["tokens"]) == TEXT
    assert found["count"] == len(found["tokens"]) and found["vocab"] == len(own)
    assert found["bytes"] == len(TEXT.encode()) and found["characters"] == len(TEXT)
    assert starter["label"] == "Starter" and starter["languages"].keys() == tokens.LANGUAGES.keys()
    assert all(count == len(own(tokens.LANGUAGES[name], add_special_tokens=False)["input_ids"])
               for name, count in found["languages"].items())


def test_the_template_is_the_models_own_and_its_marks_are_special(tiny):
    from transformers import AutoTokenizer

    own = AutoTokenizer.from_pretrained(tiny)
    found = tokens.compare("Hello", [str(tiny)], template=True)[0]
    expected = own.apply_chat_template([{"role": "user", "content": "Hello"}], add_generation_prompt=True)["input_ids"]
    assert [one["id"] for one in found["tokens"]] == list(expected)
    assert {one["text"] for one in found["tokens"] if one["special"]} == {"<|im_start|>", "<|im_end|>"}
    assert any("eos" in one["role"] for one in found["specials"])


def test_a_model_that_cannot_be_read_is_named_and_the_others_are_shown(tiny, tmp_path):
    (tmp_path / "empty").mkdir()
    broken, fine = tokens.compare("Hi", [str(tmp_path / "empty"), str(tiny)])
    assert broken["error"] and "tokens" not in broken and fine["count"]
    with pytest.raises(StudioError, match="No model"):
        tokens.compare("Hi", [])


def test_the_page_asks_in_another_process(tiny):
    from studio import api

    assert api.lab_tokens("Hi there", [str(tiny)])[0]["count"] >= 2
    for text, models, field in (("", ["starter"], "text"), ("x" * 20_001, ["starter"], "text"), ("x", [], "models")):
        with pytest.raises(StudioError) as refused:
            api.lab_tokens(text, models)
        assert refused.value.field == field
