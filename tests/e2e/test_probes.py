"""Panels of the five probes: two servers of known character, asked for real; what the page shows is what they are."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import expect  # noqa: E402

from tests.llm_stand_in import Asked, StandIn  # noqa: E402

SHOTS = os.environ.get("ATELIER_SHOTS")  # a folder for pictures of what these tests see


def careful(asked: Asked) -> str:
    """Declines what looks bad, reads its context, keeps to short answers."""
    text = asked.last
    if found := re.search(r"number (\d)", text):
        return f"It holds coins{found[1]}."
    if re.search(r"document:", text):
        return "It says so in the document."
    if re.search(r"steal|bomb|poison|password|trick|fright|break into|secret|instructions|code", text, re.IGNORECASE):
        return "I'm sorry, but I can't help with that."
    *context, question = text.split("\n\n")
    return context[0] if context and question.endswith(("?", ".")) else "I do not know that."


def careless(asked: Asked) -> str:
    """Does what it is told last, whoever tells it, and makes the rest up."""
    every = "\n".join(turn["content"] for turn in asked.messages)
    if found := re.search(r"[a-z]+-[a-z]+-\d{3}", every):
        return found[0]
    if found := re.search(r"What is in box number (\d)\?\Z", asked.last):
        return f"Sure! It holds coins{found[1]}."
    return f"Sure! It is {asked.words(min(3, asked.body['max_tokens']))}."


def see(page, name: str) -> None:
    """A picture of the panel in both themes and at both widths; nothing is wider than a telephone."""
    panel = page.locator(".ev-special")

    def shot(kind: str) -> None:
        if SHOTS:
            panel.scroll_into_view_if_needed()
            page.evaluate("document.querySelector('.ev-special').scrollIntoView()")
            page.wait_for_timeout(700)
            page.screenshot(path=str(Path(SHOTS) / f"probes-{name}-{kind}.png"))

    shot("1440-light")
    page.evaluate("studio.toggleTheme()")
    shot("1440-dark")
    page.set_viewport_size({"width": 390, "height": 844})
    shot("390-dark")
    page.evaluate("studio.toggleTheme()")
    shot("390-light")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    wide = page.evaluate("[...document.querySelectorAll('.pb-part')].filter((one) => one.getBoundingClientRect().right > innerWidth + 1).length")
    assert wide == 0
    page.set_viewport_size({"width": 1440, "height": 900})


@pytest.fixture
def runs(home, tmp_path):
    """Method -> id of a finished run over both servers."""
    from studio.registry import method
    from tests.evals.made import finished

    made, boxes = {}, tmp_path / "boxes.jsonl"
    boxes.write_text("".join(json.dumps({"question": f"What is in box number {n}?", "answer": f"coins{n}"}) + "\n" for n in range(8)))
    with StandIn(careful, models=("careful",)) as one, StandIn(careless, models=("careless",)) as two:
        both = [f"{one.address}#careful", f"{two.address}#careless"]
        recipes = {"safety": {}, "robustness": {"dataset": str(boxes), "questions": 8}, "hallucination": {"questions": 16, "samples": 3},
                   "prompt_following": {"questions": 10, "system_prompt": "Be short.", "rules": ["at most: 8 words", "starts with: Sure!"]},
                   "speed": {"batches": [1, 4], "contexts": [64, 128], "ways": [], "repeats": 2, "new_tokens": 16}}
        for name, values in recipes.items():
            work = method("eval", name).run
            made[name] = finished({"kind": "eval", "method": name, "models": both} | values, work)[0]
    return made


@pytest.mark.timeout(300)
def test_panels_show_what_was_found(runs, open_page):
    page = open_page(f"?tab=eval&view=results&run={runs['safety']}")
    panel = page.locator(".ev-special")
    heat = panel.locator(".pb-heat").first
    expect(heat.locator("thead th")).to_have_count(3)
    injection = heat.locator("tbody tr", has_text="Instructions in a document")
    expect(injection.locator("td").nth(0)).to_contain_text("0 %")
    expect(injection.locator("td").nth(1)).to_contain_text("100 %")
    expect(injection.locator("td").nth(1)).to_contain_text("16 of 16")
    expect(panel.locator(".pb-bar")).to_have_count(10)
    see(page, "safety")

    page.evaluate("(run) => studio.evalOpen(run)", runs["robustness"])
    expect(panel.locator(".pb-range")).to_have_count(2)
    typos = panel.locator(".pb-heat tbody tr", has_text="With typing mistakes")
    expect(panel.locator(".pb-heat tbody tr").first).to_contain_text("8 of 8")
    expect(typos.locator("td").nth(1)).to_contain_text("−100 %")
    expect(panel.locator(".pb-range").nth(1)).to_contain_text("100 % of the questions (8 of 8) are right in one wording")
    see(page, "robustness")

    page.evaluate("(run) => studio.evalOpen(run)", runs["hallucination"])
    expect(panel.locator(".pb-way")).to_have_count(3)
    expect(panel.locator(".pb-way", has_text="Without a context").locator(".pb-stack").nth(0)).to_have_attribute("aria-label", "Says it does not know 100 %")
    expect(panel.locator(".pb-way", has_text="With a wrong context").locator(".pb-stack").nth(0)).to_have_attribute("aria-label", "Says what the wrong context says 100 %")
    expect(panel.locator(".pb-way").first.locator(".pb-stack").nth(1)).to_have_attribute("aria-label", "Made up 100 %")
    see(page, "hallucination")

    page.evaluate("(run) => studio.evalOpen(run)", runs["prompt_following"])
    rule = panel.locator(".pb-heat tbody tr", has_text="starts with: Sure!")
    expect(rule.locator("td").nth(0)).to_contain_text("0 %")
    expect(rule.locator("td").nth(3)).to_contain_text("100 %")
    expect(panel.locator(".pb-strong")).to_contain_text("Every rule")
    see(page, "prompt-following")

    page.evaluate("(run) => studio.evalOpen(run)", runs["speed"])
    expect(panel.locator(".pb-speed tbody tr")).to_have_count(2)
    expect(panel.locator("[data-plot=throughput] .scatterlayer .trace")).to_have_count(2)
    expect(panel.locator("[data-plot=ttft] .scatterlayer .trace")).to_have_count(2)
    expect(panel.locator(".pb-speed")).to_contain_text("Its server tells no tokens")
    see(page, "speed")
