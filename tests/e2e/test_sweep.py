"""A sweep in the browser: from the form to the best model's own page."""

from __future__ import annotations

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import expect  # noqa: E402

VALUES = {"dataset": "shipped:polite", "max_steps": 4, "logging_steps": 1, "eval_steps": 2, "max_length": 64, "name": "try"}
WAIT = 120_000  # each step of a page on a busy machine


@pytest.mark.timeout(900)
def test_try_variations_watch_them_open_the_best(server, page):
    page.wait_for_function("Boolean(window.studio?.forms?.finetune?.values)")
    page.evaluate("(values) => studio.send('open_finetune', {values})", VALUES)
    page.wait_for_function("studio.forms.finetune.values.name === 'try'", timeout=WAIT)
    page.locator("#finetune-try").click()
    dialog = page.locator(".sw-dialog")
    expect(dialog.locator(".sw-axis")).to_have_count(2, timeout=WAIT)
    start = dialog.locator("[data-start]")

    # a value that the recipe refuses is told here, and nothing can be started
    rates = dialog.locator(".sw-axis").first.locator("[data-k=text]")
    rates.fill("1e-5, 1e-3, 7")
    expect(dialog.locator(".sw-total")).to_contain_text("learning_rate = 7: Must be at most 1", timeout=WAIT)
    expect(start).to_be_disabled(timeout=WAIT)

    # what was typed is there again after a reload
    rates.fill("1e-5, 1e-3, 1e-2")
    expect(start).to_be_enabled(timeout=WAIT)
    page.reload()
    page.wait_for_function("studio.forms?.finetune?.values?.name === 'try'", timeout=WAIT)
    page.locator("#finetune-try").click()
    expect(rates).to_have_value("1e-5, 1e-3, 1e-2", timeout=WAIT)
    dialog.locator("[data-drop]").nth(1).click()
    expect(start).to_have_text("Start 3 runs", timeout=WAIT)
    expect(dialog.locator(".sw-total")).to_contain_text("3 runs, about", timeout=WAIT)
    start.click()

    # the live view: the plot and the table fill, and the best one is offered
    live = page.locator("#finetune-live")
    expect(live.locator(".sw-table tbody tr")).to_have_count(3, timeout=WAIT * 3)
    expect(live.locator(".st-run-line .st-pill")).to_have_text("Done", timeout=WAIT * 3)
    expect(live.locator(".sw-table .st-pill")).to_have_text(["Done"] * 3, timeout=WAIT)
    expect(live.locator(".sw-is-best td").first).to_have_text("3", timeout=WAIT)
    drawn = page.wait_for_function("""() => {
      const plot = document.querySelector('#finetune-live .sw-plot'), data = plot?.data?.[0];
      return data?.dimensions[0].values.length === 3 && plot.querySelector('canvas, .parcoords') && {
        type: data.type, labels: data.dimensions.map((d) => d.label), rates: data.dimensions[0].values }; }""").json_value()
    assert drawn["type"] == "parcoords" and drawn["labels"] == ["Learning rate", "Validation loss"]
    assert drawn["rates"] == pytest.approx([-5, -3, -2]), "a scale of powers"
    expect(live.locator(".sw-after .st-made")).to_contain_text("best of 3", timeout=WAIT)
    expect(live.locator(".sw-after")).to_contain_text("Chat with it", timeout=WAIT)

    # the best one's own page, and back
    live.locator(".sw-best [data-open]").click()
    runs = page.locator("#runs-live")
    expect(runs.locator("h1")).to_have_text("try · 3", timeout=WAIT)
    expect(runs.locator(".st-made")).to_contain_text("Chat with it", timeout=WAIT)
    runs.locator(".sw-parent").click()
    expect(runs.locator(".sw-table tbody tr")).to_have_count(3, timeout=WAIT)

    # in the list the trials are folded under their sweep
    runs.locator(".st-back").click()
    table = page.locator("#runs-table tbody tr")
    expect(table).to_have_count(1, timeout=WAIT)
    page.locator("#runs-table .sw-fold").click()
    expect(table).to_have_count(4, timeout=WAIT)
    expect(page.locator("#runs-table tr.st-child")).to_have_count(3, timeout=WAIT)

    # its settings go back into the form
    table.first.click()
    runs.locator(".sw-best [data-use]").click()
    page.wait_for_function("studio.forms.finetune.values.learning_rate === 0.01", timeout=WAIT)
    expect(page.locator("#finetune-learning_rate input")).to_have_value("0.01", timeout=WAIT)
