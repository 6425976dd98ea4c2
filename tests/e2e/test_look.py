"""Look inside: a logit lens started from its card, and the four panels on finished runs of the starter."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import expect  # noqa: E402

from studio.starter import world  # noqa: E402

SHOTS = os.environ.get("ATELIER_SHOTS")  # a folder for pictures of what these tests see


def see(page, name: str) -> None:
    """Nothing is wider than a telephone; a picture in both themes and at both widths where they are wanted."""
    def shot(kind: str) -> None:
        if SHOTS:
            page.evaluate("document.querySelector('.ev-special').scrollIntoView()")
            page.wait_for_timeout(700)
            page.screenshot(path=str(Path(SHOTS) / f"look-{name}-{kind}.png"))

    shot("1440-light")
    page.evaluate("studio.toggleTheme()")
    shot("1440-dark")
    page.set_viewport_size({"width": 390, "height": 844})
    shot("390-dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.evaluate("studio.toggleTheme()")
    page.set_viewport_size({"width": 1440, "height": 900})


@pytest.fixture
def runs(home):
    """Method -> id of a finished run on the starter."""
    from studio.registry import method
    from tests.evals.made import finished

    animals = list(world.ANIMALS)[:20]
    recipes = {"attention": {"prompt": "Where does a fish live?", "max_new_tokens": 0}, "landscape": {"points": 2, "samples": 4},
               "abliterate": {"behaviour": "own", "sign": "legs", "samples": 8, "max_new_tokens": 12,
                              "prompts_with": [f"How many legs does a {one} have?" for one in animals],
                              "prompts_without": [f"Where does a {one} live?" for one in animals]}}
    return {name: finished({"kind": "look", "method": name} | values, method("look", name).run)[0] for name, values in recipes.items()}


@pytest.mark.timeout(300)
def test_a_lens_is_started_and_four_panels_are_drawn(runs, open_page):
    page = open_page("?tab=eval&view=look")
    expect(page.locator("#eval-view-look .ev-card")).to_have_count(4)
    expect(page.locator("#eval-view-look [data-run]")).to_have_count(3)
    expect(page.locator("#eval-view-look [data-run]", has_text="Attention by head · Starter")).to_have_count(1)
    assert page.evaluate("[...document.querySelectorAll('#eval-view-look .dt-paper')].every((one) => one.scrollWidth <= one.parentElement.clientWidth)")
    if SHOTS:
        page.screenshot(path=str(Path(SHOTS) / "look-view-1440-light.png"))
    page.locator("#eval-view-look [data-method=lens]").click()
    dialog = page.locator("dialog.ev-dialog")
    expect(dialog.locator("h2")).to_have_text("Logit lens")
    dialog.locator("textarea").first.fill("What is the colour of grass?")
    dialog.locator("[type=submit]").click()

    panel = page.locator(".ev-special")
    expect(panel.locator(".lk-table tbody tr")).to_have_count(5)
    top = panel.locator(".lk-table tbody tr").first
    expect(top.locator("th")).to_have_text("Output")
    columns = panel.locator(".lk-table thead button")
    assert "".join(columns.all_inner_texts()).replace("·", " ").endswith("Grass is green.<|im_end|>")
    expect(panel.locator("[data-plot=way][data-drawn=yes]")).to_be_visible()
    columns.nth(0).click()
    expect(columns.nth(0)).to_have_attribute("aria-pressed", "true")
    expect(panel.locator(".lk-said")).to_contain_text("After <|im_start|> the model says")
    panel.locator("[data-measure=entropy]").click()
    expect(panel.locator("[data-measure=entropy]")).to_have_attribute("aria-pressed", "true")
    see(page, "lens")

    page.evaluate("(run) => studio.openRun(run, 'look')", runs["attention"])
    expect(panel.locator(".lk-head")).to_have_count(16)
    panel.locator(".lk-head").nth(5).click()
    expect(panel.locator(".lk-said")).to_contain_text("Layer 2, head 2")
    expect(panel.locator("[data-plot=head][data-drawn=yes] .hm")).to_be_attached()
    inked = "(c) => { const all = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; return [all[3] > 250, all[4 * (c.width - 1) + 3]]; }"
    assert panel.locator(".lk-head canvas").first.evaluate(inked) == [True, 0], "the first token sees itself alone, and none sees what comes"
    see(page, "attention")

    page.evaluate("(run) => studio.openRun(run, 'look')", runs["abliterate"])
    expect(panel.locator(".pb-bar")).to_have_count(4)
    expect(panel.locator(".pb-bar").first).to_contain_text("100 %")
    expect(panel.locator(".lk-examples tbody tr").first.locator("td").nth(0)).to_contain_text("legs")
    expect(panel.locator("[data-plot=layers][data-drawn=yes]")).to_be_visible()
    expect(panel.locator("[data-against]")).to_be_visible()
    see(page, "abliterate")

    page.evaluate("(run) => studio.openRun(run, 'look')", runs["landscape"])
    expect(panel.locator("[data-plot=plane][data-drawn=yes] .contour")).to_be_attached()
    expect(panel.locator(".lk-said")).to_contain_text("the same bit for bit")
    see(page, "landscape")
    page.locator(".ev-acts [data-do=again]").click()
    expect(page.locator("dialog.ev-dialog h2")).to_have_text("Loss landscape")
