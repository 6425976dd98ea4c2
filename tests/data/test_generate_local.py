"""Generation by models of this computer, through the studio's own engine: the starter, and a copy of it in the
library."""

from __future__ import annotations

import re
import shutil

import pytest

from studio import settings
from studio.chat import manager
from studio.errors import StudioError
from studio.library import artifacts
from studio.starter.world import FOODS, JOBS, PETS, TOWNS

PEOPLE = [(TOWNS[n], PETS[n], FOODS[n], JOBS[n]) for n in range(6)]
QUESTIONS = ["Where does Amy live?", "What animal does Amy have?", "What does Amy like to eat?", "What is the job of "
             "Amy?"]


@pytest.fixture
def texts(jsonl) -> str:
    return jsonl("texts.jsonl", [{"text": f"Amy lives in {town}. She has a {pet}. She likes {food}. She is a {job}."}
                                  for town, pet, food, job in PEOPLE])


@pytest.mark.parametrize("model", ["starter", "library"])
def test_a_local_model_answers_from_documents(run_step, texts, home, model):
    """The starter is too small to write questions, but it answers given ones from a text: whole sentences, mostly
    right."""
    if model == "library":
        shutil.copytree(settings.STARTER, home / "models" / "copy")
        model = artifacts.add("model", "copy", home / "models" / "copy")["ref"]
    made = run_step("generate_from_documents", texts, generator=model, questions=QUESTIONS, instructions=False,
                    temperature=0.0, max_new_tokens=40)
    rows, facts = list(made.rows()), made.meta["history"][-1]["facts"]
    assert len(rows) >= len(PEOPLE) * 2, "at least every second answer comes from the text"
    for row in rows:
        assert re.fullmatch(r"(The job of )?Amy (lives in|has an?|likes|is an?) [A-Za-z]+\.", row["completion"]), row
    right = sum(row["completion"].removeprefix("Amy") in row["contexts"][0] for row in rows)
    assert right >= 0.8 * len(rows)
    assert facts["generator"] == model and facts["usage"]["completion_tokens"] > 0
    assert facts["usage"]["requests"] == len(PEOPLE) * len(QUESTIONS)
    assert manager.engines() == [], "the engine that was started for the run is ended with it"
    assert {"ref": model, "role": "generator"} in artifacts.get(made.ref.removeprefix("library:"))["parents"]


def test_what_the_starter_cannot_do_is_said_plainly(run_step, jsonl):
    """It follows no instructions: every reasoned answer is dropped with its reason, and the run says so."""
    with pytest.raises(StudioError, match="No row is left: .* not in the form asked for"):
        run_step("chain_of_thought", jsonl("q.jsonl", [{"prompt": "What does a cow say?", "completion": "A cow says "
                                                        "moo."}]), generator="starter", tries=1, max_new_tokens=40)
    assert manager.engines() == []


def test_an_engine_that_is_killed_in_the_middle_is_started_again(run_step, texts, monkeypatch):
    import os
    import signal

    from studio.datasets import llm, llm_http

    monkeypatch.setattr(llm_http, "BACKOFF", 0.05)
    answered, ask = [], llm.Client.ask

    def shot(self, *args, **over):
        answered.append(1)
        if len(answered) == 8:
            os.kill(manager.engines()[0]["pid"], signal.SIGKILL)
        return ask(self, *args, **over)

    monkeypatch.setattr(llm.Client, "ask", shot)
    made = run_step("generate_from_documents", texts, generator="starter", questions=QUESTIONS[:2], instructions=False,
                    temperature=0.0, max_new_tokens=40, support=0)
    assert made.count() == len(PEOPLE) * 2 and made.meta["history"][-1]["dropped"] == 0
    assert manager.engines() == []
