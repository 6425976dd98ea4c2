"""The first run, led by the page: five steps in a fresh workspace, and at their end a tuned model that answers otherwise."""

from __future__ import annotations

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import expect  # noqa: E402

WAIT = 180_000


@pytest.mark.timeout(600)
def test_five_steps_end_with_a_tuned_model(server, open_page):
    page = open_page("")
    page.locator("#st-dock [data-tour], .st-dock [data-tour]").click()
    now, done = page.locator(".st-tour .st-now b"), page.locator(".st-tour .st-done")
    act = page.locator(".st-tour [data-act]")

    expect(now).to_have_text("Ask the starter")
    expect(page.locator("#chat-prompt")).to_have_value("What is the opposite of hot?", timeout=WAIT)
    act.click()
    expect(now).to_have_text("See what it will learn from", timeout=WAIT)

    page.reload()  # finds its place again, and leads on from there
    page.locator(".st-tour [data-go]").click(timeout=WAIT)
    expect(page.locator("#finetune-panel .st-token.st-trained").first).to_be_visible(timeout=WAIT)
    act.click()
    expect(now).to_have_text("Start the training")
    act.click()
    expect(done).to_have_count(3, timeout=WAIT)
    expect(done).to_have_count(4, timeout=WAIT)

    expect(now).to_have_text("Ask both", timeout=WAIT)
    expect(page.locator("#chat-view .ch-col")).to_have_count(2)
    act.click()
    expect(page.locator(".st-tour h2")).to_have_text("You made a model", timeout=WAIT)
    starter, tuned = page.locator("#chat-view .ch-bot .ch-text").all_inner_texts()
    assert tuned != starter and tuned.startswith("Of c")
    page.locator(".st-tour [data-end]").click()
    expect(page.locator(".st-tour")).to_be_hidden()
