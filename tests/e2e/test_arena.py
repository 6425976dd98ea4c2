"""The arena in the browser: ten blind votes, their ranking, the preferences that Align opens with."""

from __future__ import annotations

import json
import re

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import expect  # noqa: E402

from tests.llm_stand_in import StandIn  # noqa: E402


@pytest.mark.timeout(600)
def test_ten_blind_votes_become_a_ranking_and_preferences(server, open_page):
    (server.home / "uploads" / "asked.jsonl").write_text(
        "".join(json.dumps({"prompt": f"What is number {i}?", "completion": "x"}) + "\n" for i in range(12)))
    with StandIn(lambda asked: "Gladly: it is a number.") as polite, StandIn(lambda asked: "No.") as short:
        page = open_page("?tab=chat&view=arena")
        page.locator(".ar-side [data-setup]").click()
        dialog = page.locator(".ar-dialog")
        dialog.locator("[type=submit]").click()
        expect(dialog.locator(".st-error")).to_contain_text("two to 32 models")
        for one in (polite, short):
            dialog.locator("[data-add]").click()
            page.locator(".ch-picker input").fill(one.address)
            page.keyboard.press("Enter")
        dialog.locator("[name=dataset]").select_option("uploads/asked.jsonl")
        dialog.locator("[type=submit]").click()
        expect(page.locator(".ar-sides")).to_contain_text("12 prompts wait")
        asked = set()
        for i in range(10):
            page.locator("[data-next]").click()
            expect(page.locator("[data-vote=a]")).to_be_enabled()
            asked.add(page.locator(".ar-asked p").inner_text())
            assert "127.0.0.1" not in page.locator(".ar-main").inner_text(), "no names before the vote"
            better = "a" if "Gladly" in page.locator("[data-side=a] .ch-text").inner_text() else "b"
            if i % 2:
                page.locator(f"[data-vote={better}]").click()
            else:
                page.locator(".ar-asked").click()
                page.keyboard.press(better)
            expect(page.locator(".ar-told")).to_contain_text(f"You preferred 127.0.0.1:{polite.port}")
        assert len(asked) == 10
        expect(page.locator(".ar-side")).to_contain_text("10 votes")
        rows = page.locator(".ar-table tbody tr")
        expect(rows).to_have_count(2)
        expect(rows.first).to_contain_text(f"127.0.0.1:{polite.port}")
        expect(rows.first.locator("td").last).to_contain_text("10")
        expect(page.locator(".ar-matrix")).to_contain_text("100 %")

        page.reload()  # the view is in the address, the votes are kept
        expect(page.locator(".ar-side")).to_contain_text("10 votes")
        page.locator("[data-dataset]").click()
        page.wait_for_function("studio.forms?.align?.values?.dataset?.startsWith('uploads/arena-votes')")
        kept = page.evaluate("studio.forms.align.values")
        assert kept["method"] == "dpo"
        rows = [json.loads(line) for line in (server.home / kept["dataset"]).read_text().splitlines()]
        assert len(rows) == 10 and all(row["chosen"][0]["content"].startswith("Gladly") for row in rows)
        assert page.evaluate("studio.tabNow()") == "align"


PROMPTS = ["What is the opposite of hot?", "What does a cow say?", "Where do fish live?", "What is the opposite of big?", "What do bees say?",
           "What colour is the sky?", "Where can you read books?", "What is the opposite of wet?", "What does a dog say?", "What is 3 plus 4?"]


def ended(page, run: str) -> dict:
    for _ in range(600):
        found = page.evaluate("(run) => studio.call('run', {run})", run)
        if found["ended"]:
            assert found["state"] == "succeeded", found["reason"]
            return found
        page.wait_for_timeout(400)
    raise AssertionError(f"{run} goes on and on")


def vote(page, models: list[str], votes: int, already: int = 0) -> dict[str, int]:
    """Put two models into the arena by its dialog, and vote for the politer answer: wins by name."""
    page.evaluate("(models) => studio.call('arena_setup', {values: {models, dataset: 'uploads/asked.jsonl', settings: {temperature: 0, max_tokens: 48}}})", models)
    page.goto(page.url.split("?")[0] + "?tab=chat&view=arena")
    won: dict[str, int] = {}
    for number in range(votes):
        page.locator("[data-next]").click()
        expect(page.locator("[data-vote=a]")).to_be_enabled(timeout=120_000)
        said = {side: page.locator(f"[data-side={side}] .ch-text").inner_text() for side in "ab"}
        polite = {side: "anything else" in text for side, text in said.items()}
        choice = "tie" if polite["a"] == polite["b"] else "a" if polite["a"] else "b"
        page.locator(f"[data-vote={choice}]").click()
        expect(page.locator(".ar-side")).to_contain_text(f"{already + number + 1} vote")
        told = page.locator(".ar-told").inner_text()
        won[told] = won.get(told, 0) + 1
    return won


@pytest.mark.timeout(900)
def test_votes_train_a_model_that_wins_the_next_vote(server, open_page):
    """Ten blind votes between the starter and a polite tune; the preferences train the starter by DPO; the next ten show the change."""
    (server.home / "uploads" / "asked.jsonl").write_text("".join(json.dumps({"prompt": prompt, "completion": "x"}) + "\n" for prompt in PROMPTS))
    page = open_page("?tab=chat&view=arena")
    page.wait_for_function("Boolean(window.studio?.bus)")
    values = {"kind": "sft", "method": "lora", "dataset": "shipped:polite", "num_train_epochs": 4, "learning_rate": 3e-3,
              "per_device_train_batch_size": 4, "eval_share": 0, "name": "Polite tune"}
    made = ended(page, page.evaluate("(values) => studio.call('submit', {values})", values)["id"])
    polite = f"library:{made['artifacts'][0]['id']}"

    before = vote(page, ["starter", polite], 10)
    assert sum(number for told, number in before.items() if "Polite tune" in told) >= 7, before

    page.locator("[data-dataset]").click()
    page.wait_for_function("studio.forms?.align?.values?.dataset?.startsWith('uploads/arena-votes')")
    for name, value in {"num_train_epochs": "30", "learning_rate": "2e-3", "loss_type": "sigmoid + sft"}.items():
        field = page.locator(f"#align-{name} :is(input, textarea)").first
        if not field.is_visible():
            page.locator(f"#align-{name}").locator("xpath=ancestor::*[contains(@class, 'st-section')]").first.locator("[data-st-toggle]").click()
        field.fill(value)
        page.keyboard.press("Tab")
    page.wait_for_function("['num_train_epochs', 'learning_rate', 'loss_type'].map((name) => studio.forms.align.values[name]).join() === '30,0.002,sigmoid + sft'")
    page.click("#align-start")
    page.wait_for_function("studio.lives.align?.run", timeout=60_000)
    aligned = ended(page, page.evaluate("studio.lives.align.run"))
    voted = next(one for one in aligned["artifacts"] if one["kind"] in ("model", "adapter"))
    assert "arena-votes" in json.dumps(aligned["recipe"])

    after = vote(page, ["starter", f"library:{voted['id']}"], 10, already=10)
    assert sum(number for told, number in after.items() if voted["name"] in told) >= 6, (after, voted["name"])
    assert not any("Starter" in told and "preferred" in told and voted["name"] not in told for told in after), after
    first = page.locator(".ar-table tbody tr th span").first  # of all three: the starter is no longer in front
    expect(first).to_have_text(re.compile(f"^({re.escape(voted['name'])}|Polite tune)$"))
