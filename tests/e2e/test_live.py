"""Watching: many tabs, the queue, a killed worker, values that are no numbers, runs longer than a chart can hold."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import expect  # noqa: E402

RECIPE = {"kind": "sft", "method": "lora", "dataset": "shipped:polite", "logging_steps": 1, "num_train_epochs": 60.0}


def submit(page, **values) -> str:
    """Start a run by the page's own door."""
    page.wait_for_function("Boolean(window.studio?.bus)")
    return page.evaluate("(values) => studio.call('submit', {values})", RECIPE | values)["id"]


def state(page, run: str) -> str:
    return page.evaluate("(run) => studio.call('run', {run})", run)["state"]


def wait_state(page, run: str, *wanted: str, timeout: float = 90) -> None:
    deadline = time.monotonic() + timeout
    while (now := state(page, run)) not in wanted:
        assert time.monotonic() < deadline, f"{run} is {now}, not {wanted}"
        page.wait_for_timeout(300)


@pytest.mark.timeout(240)
def test_five_tabs_watch_one_run(server, open_page):
    first = open_page()
    run = submit(first)
    tabs = [first.context.new_page() for _ in range(4)]
    for tab in tabs:
        tab.goto(f"{server.url}/?tab=runs&run={run}")
    first.goto(f"{server.url}/?tab=runs&run={run}")
    for tab in [first, *tabs]:
        tab.wait_for_function("(studio.lives.runs?.charts?.lines.loss?.x.length || 0) > 3", timeout=90_000)
    first.evaluate("studio.call('stop', {run: studio.lives.runs.run})")
    for tab in [first, *tabs]:
        expect(tab.locator("#runs-live .st-pill").first).to_have_text("Stopped", timeout=60_000)


@pytest.mark.timeout(240)
def test_a_killed_worker_is_told_with_its_signal_and_can_resume(server, open_page):
    page = open_page()
    run = submit(page)
    page.evaluate(f"studio.openRun('{run}')")
    page.wait_for_function("(studio.lives.runs?.charts?.lines.loss?.x.length || 0) > 3", timeout=90_000)
    guardian = json.loads((server.home / "runs" / run / "guardian.json").read_text())
    os.kill(guardian["worker_pid"], signal.SIGKILL)
    expect(page.locator("#runs-live .st-pill").first).to_have_text("Failed", timeout=60_000)
    expect(page.locator("#runs-live .st-banner")).to_contain_text("SIGKILL")
    page.locator("#runs-live [data-resume]").click()
    expect(page.locator("#runs-live .st-pill").first).to_have_text("Running", timeout=60_000)
    page.locator("#runs-live .st-run-actions").get_by_text("Stop", exact=True).click()
    expect(page.locator("#runs-live .st-pill").first).to_have_text("Stopped", timeout=60_000)


@pytest.mark.timeout(240)
def test_the_queue_can_be_seen_reordered_and_shortened(server, open_page):
    page = open_page()
    runs = [submit(page, name=name) for name in ("one", "two", "three", "four")]
    wait_state(page, runs[0], "running")
    queued = [run for run in runs if state(page, run) == "queued"]
    assert len(queued) >= 2
    page.locator("[data-queue]").click()
    rows = page.locator(".st-dock-queue li:has([data-up])")
    expect(rows).to_have_count(len(queued))
    names = [text.split("\n")[0] for text in rows.all_inner_texts()]
    rows.nth(1).locator("[data-up]").click()
    expect(rows.first.locator(".st-link")).to_have_text(names[1])
    rows.last.get_by_text("Remove from queue").click()
    expect(rows).to_have_count(len(queued) - 1)
    for run in runs:
        if state(page, run) in ("queued", "starting", "running"):
            page.evaluate("(run) => studio.call('stop', {run})", run)
    for run in runs:
        wait_state(page, run, "stopped")


@pytest.mark.timeout(90)
def test_charts_tell_nan_keep_spikes_and_stay_small(page):
    page.wait_for_function("Boolean(window.studio?.bus)")
    page.evaluate("""async () => {
      const place = document.body.appendChild(document.createElement('div'));
      const charts = window.charts = new studio.Charts(place);
      charts.add({loss: [[1, 3], [2, 'NaN'], [3, 2.5]], eval_loss: [[3, 2.7]], entropy: [[1, 0.4]]});
      const many = [];
      for (let i = 4; i < 40000; i++) many.push([i, i === 20000 ? 99 : 2 + Math.sin(i / 50)]);
      charts.add({loss: many});
      await charts.charts.loss.queue;
    }""")
    found = page.evaluate("""() => { const line = charts.lines.loss, chart = charts.charts.loss; return {
      points: line.x.length, spike: Math.max(...line.y), last: line.x.at(-1), drawn: chart.plot.data[0].x.length,
      text: chart.element.querySelector('.st-summary').textContent, label: chart.plot.getAttribute('aria-label'),
      shapes: chart.plot.layout.shapes.length}; }""")
    assert found["points"] <= 5000 and found["spike"] == 99 and found["last"] == 39999
    assert "NaN at step 2" in found["text"] and "NaN at step 2" in found["label"] and found["shapes"] == 1
    assert found["drawn"] == found["points"]
    smooth = page.evaluate("""async () => {
      const chart = charts.charts.loss;
      charts.smooth(0.9);
      charts.scale(true);
      await chart.queue;
      const spread = Math.max(...charts.lines.loss.smooth.filter((v) => v !== null));
      return {visible: chart.plot.data[1].visible, y: chart.plot.layout.yaxis.type, spread}; }""")
    assert smooth["visible"] is True and smooth["y"] == "log" and smooth["spread"] < 99


@pytest.mark.timeout(90)
def test_hostile_names_are_only_text(server, open_page):
    page = open_page()
    (server.home / "uploads").mkdir(exist_ok=True)
    hostile = server.home / "uploads" / "<img src=x onerror=alert(1)>.jsonl"
    hostile.write_text('{"prompt": "a", "completion": "<b>b</b>"}\n' * 4)
    page.locator("#tab-library-button").click()
    expect(page.locator("#library-items")).to_contain_text("<img src=x", timeout=60_000)
    assert page.locator("#library-items img").count() == 0
