"""Blind battles against stand-in servers: names stay hidden, one vote counts once, votes become preferences."""

from __future__ import annotations

import json
import threading
import time

import pytest

from studio import api
from studio.errors import StudioError
from tests.llm_stand_in import StandIn


@pytest.fixture
def two(home):
    """Two servers, the one polite, the other short."""
    with StandIn(lambda asked: f"Gladly. {asked.last} — here you are.") as polite, StandIn(lambda asked: "No.") as short:
        yield [polite.address, short.address]


def settled(battle: dict, voter: str | None = None) -> dict:
    for _ in range(200):
        if battle["state"] != "answering":
            return battle
        time.sleep(0.02)
        battle = api.arena_poll(battle["id"], voter)
    raise AssertionError(battle)


def played(choose, voter: str | None = None, prompt: str = "") -> dict:
    battle = settled(api.arena_start(prompt, voter), voter)
    return api.arena_vote(battle["id"], choose(battle), voter)


def polite(battle: dict) -> str:
    return "a" if battle["a"]["text"].startswith("Gladly") else "b"


def test_names_are_hidden_until_the_vote(two):
    api.arena_setup({"models": two})
    battle = settled(api.arena_start("What is the time?"))
    assert battle["state"] == "ready" and {battle["a"]["text"].strip(), battle["b"]["text"].strip()} == {
        "Gladly. What is the time? — here you are.", "No."}
    assert not {"ref", "label", "tokens_per_second", "ttft"} & (battle["a"].keys() | battle["b"].keys())
    assert not any(address in json.dumps(battle) for address in two)
    after = api.arena_vote(battle["id"], polite(battle))
    assert after["state"] == "voted" and {after["a"]["ref"], after["b"]["ref"]} == set(two)


def test_a_vote_counts_once_however_often_it_is_sent(two):
    api.arena_setup({"models": two})
    battle = settled(api.arena_start("Hello?"))
    told: list[str] = []

    def cast() -> None:
        try:
            api.arena_vote(battle["id"], "a")
            told.append("counted")
        except StudioError as err:
            told.append(err.message)

    threads = [threading.Thread(target=cast) for _ in range(12)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sorted(told) == ["This battle was voted on already."] * 11 + ["counted"]
    assert api.arena_table()["votes"] == 1


def test_only_who_asked_for_a_battle_votes_on_it(two):
    api.arena_setup({"models": two})
    battle = settled(api.arena_start("Hello?", "ann"), "ann")
    for call in (api.arena_poll, api.arena_stop, lambda id, voter: api.arena_vote(id, "a", voter)):
        with pytest.raises(StudioError, match="no such battle"):
            call(battle["id"], "bob")
    with pytest.raises(StudioError, match="no vote"):
        api.arena_vote(battle["id"], "left", "ann")


def test_sides_are_drawn_and_the_ranking_follows_the_votes(two, tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"Question {i}?", "completion": "x", "topic": f"t{i % 2}"}) + "\n"
                               for i in range(16)))
    api.arena_setup({"models": two, "dataset": str(prompts), "tag": "topic"})
    votes = [played(lambda battle, i=i: polite(battle) if i % 4 else "tie") for i in range(16)]
    assert {vote["vote"] for vote in votes} == {"a", "b", "tie"}, "left and right are drawn"
    assert len({vote["prompt"][-1]["content"] for vote in votes}) == 16, "no prompt twice while there are fresh ones"
    found = api.arena_table()
    assert [row["ref"] for row in found["table"]] == two and found["votes"] == 16
    assert (found["table"][0]["wins"], found["table"][0]["ties"], found["table"][0]["losses"]) == (12, 4, 0)
    assert found["matrix"]["share"][found["matrix"]["names"].index(two[0])][found["matrix"]["names"].index(two[1])] == 7 / 8
    assert found["tags"] == {"t0": 8, "t1": 8} and api.arena_table("t1")["votes"] == 8


def test_votes_become_preferences_that_alignment_reads(two):
    from studio.aligners import data
    from studio.recipe import parse

    api.arena_setup({"models": two})
    for i in range(3):
        played(polite, prompt=f"Question {i}?")
    played(lambda _: "bad", prompt="Another?")
    made = api.arena_dataset("mine")
    assert made["pairs"] == 3 and made["left_out"] == 1 and made["name"] == "mine.jsonl"
    assert api.arena_dataset("mine")["name"] == "mine-2.jsonl", "nothing is overwritten"
    found = data.read(parse({"kind": "align", "method": "dpo", "model": "starter", "dataset": made["ref"],
                             "eval_share": 0.34}), "pairs")
    rows = found.train + found.held
    assert len(rows) == 3 and all("Gladly" in json.dumps(row["chosen"]) and "No." in json.dumps(row["rejected"]) for row in rows)


def test_a_model_that_fails_is_named_and_nothing_is_counted(two):
    api.arena_setup({"models": [two[0], "http://127.0.0.1:9/v1#gone"]})
    battle = settled(api.arena_start("Hello?"))
    assert battle["state"] == "failed"
    broken = next(battle[side] for side in ("a", "b") if battle[side]["ref"].endswith("#gone"))
    assert broken["state"] == "failed" and broken["error"] and "label" in broken
    with pytest.raises(StudioError, match="has failed"):
        api.arena_vote(battle["id"], "a")
    assert api.arena_table()["votes"] == 0


@pytest.mark.parametrize(("values", "field"), [
    ({"models": []}, "models"), ({"models": ["starter"]}, "models"), ({"models": ["starter", "library:nothing"]}, "model"),
    ({"models": ["starter", "http://127.0.0.1:9/v1#m"], "dataset": "shipped:nothing"}, "dataset"),
    ({"models": ["starter", "http://127.0.0.1:9/v1#m"], "settings": {"temperature": 9}}, "temperature"),
])
def test_what_cannot_be_is_refused_in_its_field(home, values, field):
    with pytest.raises(StudioError) as refused:
        api.arena_setup(values)
    assert refused.value.field == field
    with pytest.raises(StudioError, match="two models"):
        api.arena_start("Hello?")


def test_on_a_space_its_author_chooses_and_visitors_vote(two, monkeypatch):
    def stream(ref, *_):
        yield {"state": "done", "text": "Gladly." if ref == two[0] else "No."}

    monkeypatch.setattr("studio.arena.battles.session.stream", stream)  # a Space asks no server of its own machine
    monkeypatch.setenv("SPACE_ID", "ann/arena")
    monkeypatch.setenv("SPACE_AUTHOR_NAME", "ann")
    with pytest.raises(StudioError, match="Only the author"):
        api.arena_setup({"models": two}, "bob")
    api.arena_setup({"models": two}, "ann")
    for voter in ("bob", "eve"):
        played(polite, voter, "Who are you?")
    assert api.arena("bob")["may_change"] is False and api.arena_table()["votes"] == 2
    with pytest.raises(StudioError, match="Only the author"):
        api.arena_dataset(voter="bob")
