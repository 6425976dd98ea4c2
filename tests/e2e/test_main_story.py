"""The main job in a real browser with a real training, through everything that may go wrong on the way."""

from __future__ import annotations

import json
import time
import urllib.request

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import Error, expect  # noqa: E402

POINTS = "() => document.querySelector('#{tab}-live [data-chart=loss] .st-plot')?.data?.[0]?.x.length || 0"


def points(page, tab: str) -> int:
    try:
        return page.evaluate(POINTS.replace("{tab}", tab))
    except Error:  # the page reloads itself when its server came back
        return 0


def wait_points(page, tab: str, more_than: int, timeout: float = 60) -> int:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if (now := points(page, tab)) > more_than:
            return now
        page.wait_for_timeout(300)
    raise AssertionError(f"the curve did not grow beyond {more_than} points; it has {points(page, tab)}")


def choose_dataset(page, label: str) -> None:
    page.wait_for_function("Boolean(window.studio?.forms?.finetune)")
    page.locator("#finetune-dataset input").click()
    page.get_by_role("option").filter(has_text=label).first.click()


def choose_method(page, title: str) -> None:
    """By what may change in the model, then by name."""
    chooser = page.locator("#finetune-methods")
    group = "The model itself" if title.startswith("Full") else "A small part beside the model"
    chooser.get_by_text(group, exact=True).click()
    chooser.get_by_text(title, exact=True).click()


def fill(page, name: str, value: str) -> None:
    section = page.locator(f"#finetune-{name}").locator("xpath=ancestor::*[contains(@class, 'st-section')]").first
    head = section.locator("[data-st-toggle]")
    if head.get_attribute("aria-expanded") == "false":
        head.click()
    page.locator(f"#finetune-{name} :is(input, textarea)").first.fill(value)
    page.keyboard.press("Tab")


def steps_for(page, seconds: float) -> int:
    """Steps that take about ``seconds`` on this machine as busy as it is, from a short run."""
    page.wait_for_function("Boolean(window.studio?.bus)")
    values = {"kind": "sft", "method": "lora", "dataset": "shipped:polite", "max_steps": 12, "eval_share": 0.0}
    run = page.evaluate("(values) => studio.call('submit', {values})", values)["id"]
    for _ in range(300):
        found = page.evaluate("(run) => studio.call('run', {run})", run)
        if found["ended"]:
            return max(80, min(3000, int(seconds * 12 / found["summary"]["seconds"])))
        page.wait_for_timeout(400)
    raise AssertionError(f"twelve steps took more than two minutes: {found['state']}")


@pytest.mark.timeout(900)
def test_fine_tune_watch_survive_resume_chat(server, open_page):
    page = open_page()
    steps = steps_for(page, 45 + 5 * server.took)  # long enough to be killed, reloaded and stopped on the way
    choose_dataset(page, "Polite answers")
    expect(page.locator("#finetune-panel .st-token.st-trained").first).to_be_visible(timeout=60_000)
    fill(page, "max_steps", str(steps))
    fill(page, "logging_steps", "1")
    fill(page, "eval_steps", str(steps // 4))
    fill(page, "sample_prompts", "What do bees say?")
    expect(page.locator("#finetune-estimate dd").first).to_have_text(f"{steps:,}")
    page.click("#finetune-start")
    expect(page.locator("#finetune-live h1")).to_have_text("Starter · Polite answers", timeout=60_000)
    run = page.evaluate("studio.lives.finetune.run")
    assert f"run={run}" in page.url

    # the curve grows, and a zoom stays where it was put
    seen = wait_points(page, "finetune", 3)
    plot = "document.querySelector('#finetune-live [data-chart=loss] .st-plot')"
    page.evaluate(f"{plot}.node = {plot}.querySelector('.main-svg');"
                  f"Plotly.relayout({plot}, {{'xaxis.range': [2, 9], 'yaxis.range': [1, 10]}})")
    seen = wait_points(page, "finetune", seen + 2)
    assert page.evaluate(f"{plot}.layout.xaxis.range") == [2, 9]
    assert page.evaluate(f"{plot}.node === {plot}.querySelector('.main-svg')"), "the chart was built anew"

    # the dock tells the same, and a second browser watches too
    expect(page.locator(".st-dock-name")).to_have_text("Starter · Polite answers")
    other = open_page(f"?tab=runs&run={run}")
    wait_points(other, "runs", 3)
    other.close()

    # reload: still live
    page.reload()
    expect(page.locator("#finetune-live h1")).to_have_text("Starter · Polite answers", timeout=60_000)
    seen = wait_points(page, "finetune", seen)

    # the page's server dies and comes back: the run never noticed, and the open page goes on
    server.kill()
    page.wait_for_timeout(4000)
    server.start()
    seen = wait_points(page, "finetune", seen, timeout=90)

    # stop: a checkpoint first, then resume from it to the end
    page.locator("#finetune-live .st-run-actions").get_by_text("Stop", exact=True).click()
    expect(page.locator("#finetune-live .st-pill").first).to_have_text("Stopped", timeout=60_000)
    assert list((server.home / "runs" / run / "checkpoints").glob("checkpoint-*/COMPLETE"))
    page.locator("#finetune-live [data-side=checkpoints]").click()
    expect(page.locator("#finetune-live [data-pane=checkpoints] tr").first).to_be_visible()
    stopped_at = page.evaluate("studio.lives.finetune.charts.lines.loss.lastStep")
    page.locator("#finetune-live [data-resume]").click()
    expect(page.locator("#finetune-live .st-pill").first).to_have_text("Running", timeout=60_000)
    expect(page.locator("#finetune-live .st-pill").first).to_have_text("Done", timeout=600_000)
    told = page.evaluate("studio.lives.finetune.charts.lines.loss.x")
    assert told == sorted(set(told)), "the resumed curve overlaps the first part"
    assert told[-1] == steps > stopped_at

    # its answers changed, and chatting shows base beside tuned
    page.locator("#finetune-live [data-side=samples]").click()
    answers = page.locator("#finetune-live .st-sample tbody tr td:last-child").all_inner_texts()
    assert len(set(answers)) > 1
    page.locator("#finetune-live .st-made").get_by_text("Chat with it").click()
    expect(page.locator("#tab-chat-button")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#chat-columns .ch-col")).to_have_count(2)
    page.locator("#chat-prompt").fill("What do bees say?")
    page.locator("#chat-send").click()
    answer = "[data-testid=bot]:not(.ch-live) .ch-text"
    said = [page.locator(f"#chat-columns .ch-col:nth-child({n}) {answer}") for n in (1, 2)]
    for column in said:
        expect(column).not_to_be_empty(timeout=120_000)
    assert said[0].inner_text() != said[1].inner_text()


@pytest.mark.timeout(120)
def test_a_bad_value_is_shown_at_its_field_and_starts_nothing(server, page):
    choose_dataset(page, "Polite answers")
    fill(page, "learning_rate", "nan")
    error = page.locator("#finetune-learning_rate .st-error")
    expect(error).to_be_visible()
    assert page.locator("#finetune-learning_rate input").get_attribute("aria-invalid") == "true"
    page.click("#finetune-start")
    page.wait_for_timeout(1500)
    assert not page.locator("#finetune-live h1").count()
    assert not list((server.home / "runs").iterdir())
    fill(page, "learning_rate", "1e-3")
    expect(error).to_have_count(0)


@pytest.mark.timeout(120)
def test_what_was_typed_survives_a_reload_and_goes_both_ways_with_yaml(page):
    choose_dataset(page, "Polite answers")
    fill(page, "num_train_epochs", "5")
    fill(page, "name", "first try")
    page.wait_for_timeout(800)
    page.reload()
    expect(page.locator("#finetune-name input")).to_have_value("first try", timeout=60_000)
    expect(page.locator("#finetune-num_train_epochs input")).to_have_value("5")
    page.click("#finetune-view-yaml")
    area = page.locator("#finetune-yaml")
    assert "name: first try" in area.input_value()
    text = area.input_value().replace("name: first try", "name: second try")
    area.fill(text.replace("num_train_epochs: 5.0", "num_train_epochs: 2.0"))
    page.locator("#finetune-panel [data-apply]").click()
    expect(page.locator("#finetune-name input")).to_have_value("second try")
    expect(page.locator("#finetune-num_train_epochs input")).to_have_value("2")
    area.fill("kind: sft\nmethod: lora\nlearning_rate: !!python/name:os.system\n")
    page.locator("#finetune-panel [data-apply]").click()
    expect(page.locator(".st-yaml-error")).to_contain_text("YAML")
    expect(page.locator("#finetune-name input")).to_have_value("second try")


@pytest.mark.timeout(120)
def test_full_fine_tuning_shows_its_own_fields(page):
    expect(page.locator("#finetune-r input")).to_be_visible()
    steps = page.locator("#finetune-max_steps input")
    expect(steps).to_have_value("")  # not the library's -1
    expect(steps).to_have_attribute("placeholder", "as the epochs say")
    for title, there in (("Full fine-tuning", False), ("VeRA", True), ("LoRA", True)):
        choose_method(page, title)
        if there:
            expect(page.locator("#finetune-r input")).to_have_value({"VeRA": "256", "LoRA": "16"}[title])
        else:
            expect(page.locator("#finetune-r")).to_have_count(0)
        expect(steps).to_have_value("")


@pytest.mark.timeout(120)
def test_start_with_the_keyboard_alone(server, page):
    page.wait_for_function("Boolean(window.studio?.forms?.finetune)")
    page.locator("#tab-finetune-button").focus()
    page.locator("#finetune-dataset input").focus()
    page.keyboard.type("Polite ans")
    expect(page.get_by_role("listbox").get_by_role("option")).to_have_count(2)  # the list narrows as one types
    page.keyboard.press("Enter")
    expect(page.locator("#finetune-estimate dd").first).to_be_visible(timeout=60_000)
    page.locator("#finetune-max_steps input").focus()
    page.keyboard.press("Control+a")
    page.keyboard.type("3")
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "finetune-start":
            break
    assert page.evaluate("document.activeElement.id") == "finetune-start"
    page.keyboard.press("Enter")
    expect(page.locator("#finetune-live h1")).to_be_visible(timeout=60_000)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_telephone_shows_everything_without_sideways_scrolling(open_page, dark):
    page = open_page(width=390, height=844, dark=dark)
    for tab in ("finetune", "pretrain", "runs", "library"):
        page.locator(f"#tab-{tab}-button").click()
        page.wait_for_timeout(600)
        assert page.evaluate("document.documentElement.scrollWidth") <= 391, tab
        expect(page.locator(".st-dock")).to_be_in_viewport()
    assert page.evaluate("document.body.classList.contains('dark')") is dark


@pytest.mark.timeout(60)
def test_the_theme_is_remembered(page):
    before = page.evaluate("document.documentElement.dataset.theme")
    page.locator(".st-theme").click()
    page.reload()
    page.wait_for_selector(".st-theme")
    assert page.evaluate("document.documentElement.dataset.theme") != before


@pytest.mark.timeout(60)
def test_the_page_comes_from_this_machine_alone(server, open_page):
    page = open_page()
    origins = page.evaluate("performance.getEntriesByType('resource').map((e) => new URL(e.name).origin)")
    assert set(origins) == {server.url}
    with urllib.request.urlopen(server.url + "/gradio_api/info") as answer:
        named = json.load(answer)["named_endpoints"]
    assert sorted(named) == ["/list_methods", "/list_runs", "/run_status", "/submit_run", "/validate_recipe"]
