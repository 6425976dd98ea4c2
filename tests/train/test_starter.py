"""The shipped starter can do what its card says, and cannot do what is left for fine-tuning."""

import json

import pytest

from studio import settings
from studio.starter import score, skills

LEAST = {"people": 0.9, "animals": 0.9, "colours": 0.9, "opposites": 0.9, "sentiment": 0.95, "identity": 0.9,
         "one_word": 0.7, "unknown": 0.75, "repeat": 0.6, "counting": 0.45, "sums": 0.35, "paragraph": 0.25}


@pytest.fixture(scope="module")
def result() -> dict:
    return score.report(settings.STARTER, per_skill=40)


def test_perplexity_is_low(result):
    assert 1 < result["perplexity"] < 5


@pytest.mark.parametrize("skill", LEAST)
def test_taught_skill(result, skill):
    assert result["accuracy"][skill] >= LEAST[skill], result["wrong"].get(skill)


@pytest.mark.parametrize("skill", skills.UNTAUGHT)
def test_untaught_skill(result, skill):
    assert result["accuracy"][skill] <= 0.1


def test_it_tells_a_story_to_its_end():
    model, tokenizer = score.load(settings.STARTER)
    chat = [{"role": "user", "content": "Tell me a story about Amy."}]
    (story,) = score.answer(model, tokenizer, [chat], max_new_tokens=200)
    assert "Amy" in story and 4 <= story.count(".") <= 14
    assert story.rstrip().endswith((".", '"')), "it ends by itself, not in the middle of a sentence"


def test_command_line_prints_every_skill(capsys):
    assert score.main([str(settings.STARTER), "--per-skill", "2", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert set(printed["accuracy"]) == {*skills.SKILLS, *skills.UNTAUGHT}
    assert score.main([str(settings.STARTER), "--per-skill", "1"]) == 0
    assert "(not taught)" in capsys.readouterr().out
