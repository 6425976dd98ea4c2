"""The Eval tab by clicks alone: what is started there, how its scores and answers are read, and a tuned model against its base."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import expect  # noqa: E402

LONG = 180_000  # milliseconds; two busy cores
SHOTS = os.environ.get("ATELIER_SHOTS")  # a folder for pictures of what these tests see
TUNE = {"kind": "sft", "method": "lora", "name": "Sums", "dataset": "shipped:sums", "max_steps": 12, "learning_rate": 5e-3,
        "logging_steps": 6, "sample_prompts": [], "max_length": 64, "eval_share": 0.2, "seed": 7}
ENDED = """async (run) => {
  for (;;) {
    const {state} = await studio.call('run', {run});
    if (['succeeded', 'failed', 'stopped', 'lost'].includes(state)) return state;
    await new Promise((done) => setTimeout(done, 300));
  }
}"""


def shot(page, name: str) -> None:
    """A picture for the eye, where a folder for them is named."""
    if SHOTS:
        page.wait_for_timeout(400)
        page.screenshot(path=str(Path(SHOTS) / f"{name}.png"))


def looks(page, name: str) -> None:
    """The same place in both themes and on a telephone; nothing is wider than that."""
    wide = page.viewport_size
    shot(page, f"{name}-light")
    page.evaluate("studio.toggleTheme()")
    shot(page, f"{name}-dark")
    page.set_viewport_size({"width": 390, "height": 844})
    shot(page, f"{name}-390-dark")
    page.evaluate("studio.toggleTheme()")
    shot(page, f"{name}-390")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.set_viewport_size(wide)


def param(page, name: str) -> str | None:
    return page.evaluate("(name) => studio.param(name)", name)


def ended(page) -> str:
    state = page.evaluate(ENDED, param(page, "run"))
    expect(page.locator(".ev-live")).to_be_hidden()
    return state


def pick(page, name: str) -> None:
    """Add a model to the dialog's list."""
    page.locator("dialog.ev-dialog [data-more]").click()
    page.locator(".ch-picker [role=option]").filter(has=page.locator("b", has_text=re.compile(f"^{name}$"))).click()


@pytest.mark.timeout(600)
def test_from_a_question_to_the_answers_behind_its_score(open_page):
    page = open_page("?tab=eval")
    expect(page.locator(".ev-card b").first).to_have_text("Benchmarks")
    expect(page.locator(".ev-recent")).to_have_count(0)
    looks(page, "start")

    # what is half filled in is there again after a reload
    page.locator(".ev-card [data-method=harness]").click()
    dialog = page.locator("dialog.ev-dialog")
    pick(page, "Starter")
    expect(dialog.locator(".ev-models li")).to_have_count(1)
    for name in [chip.get_attribute("data-drop") for chip in dialog.locator(".ev-chip [data-drop]").all()]:
        dialog.locator(f".ev-chip [data-drop='{name}']").click()
    dialog.locator(".ev-find input").fill("sums up")
    dialog.locator("[data-task='suite:sums']").check()
    dialog.locator(".ev-find input").fill("no_such_task_at_all")
    dialog.locator(".ev-typed").click()
    expect(dialog.locator(".ev-chip")).to_have_count(2)
    page.reload()
    expect(dialog.locator(".ev-models li b").nth(1)).to_have_text("Starter")
    expect(dialog.locator(".ev-chip")).to_have_count(2)
    expect(dialog.locator(".dt-reads")).to_contain_text("is here again")
    shot(page, "dialog")

    # what is wrong is said where it is, and nothing was started
    dialog.get_by_label("Questions", exact=True).fill("0")
    dialog.locator("[type=submit]").click()
    expect(dialog.locator("[data-field=limit] .st-error")).to_be_visible()
    assert page.evaluate("studio.call('eval_runs')") == []
    dialog.get_by_label("Questions", exact=True).fill("20")
    dialog.locator(".ev-chip [data-drop='no_such_task_at_all']").click()
    dialog.locator("[type=submit]").click()

    # its progress, then scores; the place is in the address
    expect(page.locator(".ev-name h1")).to_have_text("Benchmarks · Starter", timeout=LONG)
    expect(page.locator(".ev-live .st-pill")).to_be_visible()
    shot(page, "live")
    assert param(page, "view") == "results" and param(page, "start") is None
    assert ended(page) == "succeeded"
    score = page.locator(".ev-table tbody .ev-value")
    expect(score).to_have_count(1)
    found = page.evaluate("studio.call('eval_results', {run: studio.param('run')})")
    (main,) = [one for one in found["scores"] if one["metric"] == found["tasks"]["suite:sums"]["main"]]
    assert main["n"] == 20 and 0 < main["value"] < 1
    expect(score).to_contain_text(f"{100 * main['value']:.1f} %")

    # the answers: filtered, unfolded, kept by a reload
    rows = page.locator(".ev-row")
    right = round(main["value"] * 20)
    expect(rows).to_have_count(20)
    page.locator(".ev-switch [data-where=wrong]").click()
    expect(page.locator(".ev-switch [data-where=wrong] i")).to_have_text(str(20 - right))
    expect(rows).to_have_count(20 - right)
    expect(page.locator(".ev-row .ev-mark.ev-right")).to_have_count(0)
    asked = rows.first.locator(".ev-prompt").inner_text()
    assert "<|" not in asked, "the marks of the template stand in the whole prompt alone"
    rows.first.locator("[data-open]").click()
    expect(rows.first.locator(".ev-asked pre")).to_contain_text("<|im_start|>user")
    page.locator(".ev-tools [data-find]").fill(asked[:40])
    expect(rows).to_have_count(1)
    page.reload()
    expect(rows).to_have_count(1, timeout=LONG)
    expect(page.locator(".ev-tools [data-find]")).to_have_value(asked[:40])
    expect(page.locator(".ev-switch [data-where=wrong]")).to_have_attribute("aria-pressed", "true")

    # another tab and back: the same place; another part of the page opens the run in this tab
    run = param(page, "run")
    page.locator("#tab-runs-button").click()
    assert param(page, "where") is None and param(page, "view") is None
    page.locator(f"tr[data-run={run}]").click()
    expect(page.locator("#tab-eval-button")).to_have_attribute("aria-selected", "true")
    expect(rows).to_have_count(1)
    assert param(page, "where") == "wrong"
    page.goto(page.url.split("?")[0] + f"?run={run}")
    expect(page.locator(".ev-name h1")).to_have_text("Benchmarks · Starter", timeout=LONG)
    assert param(page, "tab") == "eval"

    # again with changes, stopped, and nothing is left behind
    page.get_by_role("button", name="Again with changes").click()
    expect(dialog.locator(".ev-chip")).to_have_count(1)
    dialog.locator("[data-cancel]").click()
    expect(dialog).to_have_count(0)
    assert param(page, "start") is None
    page.locator("#eval-tab-results").click()
    page.locator(".ev-acts [data-do=delete]").click()
    page.locator("dialog [type=submit]").click()
    expect(page.locator(".ev-none")).to_contain_text("Nothing was evaluated yet")


@pytest.mark.timeout(900)
def test_base_against_tuned_after_a_training(open_page):
    page = open_page()
    page.wait_for_function("Boolean(window.studio?.bus)")
    tuned = page.evaluate("(values) => studio.call('submit', {values}).then((run) => run.id)", TUNE)
    assert page.evaluate(ENDED, tuned) == "succeeded"
    page.evaluate("(run) => studio.openRun(run)", tuned)
    page.locator("#runs-live").get_by_role("button", name="Base against tuned").click(timeout=LONG)

    # one dialog, filled in: both models, the studio's own tasks, and the rows that the training kept back
    dialog = page.locator("dialog.ev-dialog")
    expect(dialog.locator("h2")).to_have_text("Base against tuned", timeout=LONG)
    expect(dialog.locator(".ev-models li")).to_have_count(2)
    expect(dialog.locator(".ev-models li").first).to_contain_text("Starter")
    expect(dialog.locator(".ev-models li").nth(1)).to_contain_text("Sums")
    expect(dialog.locator(".dt-reads")).to_contain_text(re.compile(r"the \d+ rows that its training kept"))
    expect(dialog.locator(".ev-chip")).not_to_have_count(0)
    shot(page, "against")
    for name in [chip.get_attribute("data-drop") for chip in dialog.locator(".ev-tasks .ev-chip [data-drop]").all()]:
        if name not in ("suite:sums", "suite:facts"):
            dialog.locator(f".ev-chip [data-drop='{name}']").click()
    expect(dialog.locator(".ev-tasks .ev-chip")).to_have_count(2)
    dialog.get_by_label("Questions", exact=True).fill("40")
    dialog.locator("[type=submit]").click()
    expect(page.locator(".ev-name h1")).to_have_text("Sums against Starter", timeout=LONG)
    assert ended(page) == "succeeded"

    # both columns, the held-out rows among the lines, and what changed with its interval
    expect(page.locator(".ev-table thead th")).to_have_count(3)
    found = page.evaluate("studio.call('eval_results', {run: studio.param('run')})")
    assert {"suite:sums", "suite:facts", "heldout"} <= set(found["tasks"]) and [one["label"] for one in found["models"]] == ["Starter", "Sums"]
    run = param(page, "run")
    pairs = page.evaluate("(run) => studio.call('eval_pairs', {a: {run, model: 0}, b: {run, model: 1}})", run)
    sure = [one for one in pairs if one["metric"] == found["tasks"][one["task"]]["main"] and one["sure"]]
    expect(page.locator(".ev-verdict")).to_be_visible()
    expect(page.locator(".ev-cell:has(.ev-change.ev-worse)")).to_have_count(sum(one["worse"] for one in sure))
    expect(page.locator(".ev-cell:has(.ev-change.ev-better)")).to_have_count(sum(not one["worse"] for one in sure))
    looks(page, "results")

    # from a change to the answers that it is made of, side by side
    changed = next(one for one in pairs if one["worse_answers"] or one["better_answers"])
    kind = "worse" if changed["worse_answers"] else "better"
    page.locator(f".ev-flip-{kind}[data-task='{changed['task']}']").first.click()
    rows = page.locator(".ev-row")
    expect(rows).to_have_count(min(20, changed[f"{kind}_answers"]))
    expect(rows.first.locator(".ev-answer")).to_have_count(2)
    assert (param(page, "task"), param(page, "where")) == (changed["task"], kind)
    rows.first.locator("[data-open]").click()
    looks(page, "answers")
    expect(page.locator("#eval-view-results .ev-said").first).to_be_visible()
