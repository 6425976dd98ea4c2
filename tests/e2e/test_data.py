"""Choosing data in the browser: what was found, columns put right by hand, refusals at the field, hostile content."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import expect  # noqa: E402


def choose(page, ref: str) -> None:
    """Type a dataset, as soon as the form listens."""
    page.wait_for_function("window.studio?.forms?.finetune?.values")
    box = page.locator("#finetune-dataset input")
    box.click()
    box.fill(ref)
    box.press("Enter")
    box.press("Tab")
    page.wait_for_function("(ref) => studio.forms.finetune.values.dataset === ref", arg=ref)


@pytest.mark.timeout(180)
def test_columns_are_put_right_by_hand(server, open_page):
    (server.home / "weather.csv").write_text("temperature,city\n" + "".join(f"{i},Town {i}\n" for i in range(30)))
    page = open_page()
    page.locator("#finetune-panel [role=tab][data-view=data]").click()
    choose(page, "weather.csv")
    bad = page.locator("#finetune-panel .st-level-error")
    expect(bad).to_contain_text("No known format fits the columns 'temperature', 'city'")
    page.locator("#finetune-panel [data-role=prompt]").select_option("city")
    expect(bad).to_contain_text("A role is missing")
    page.locator("#finetune-panel [data-role=completion]").select_option("temperature")
    expect(bad).to_have_count(0)
    expect(page.locator("#finetune-panel .st-tiles")).to_contain_text("Prompts and completions")
    expect(page.locator("#finetune-panel .st-tiles")).to_contain_text("30")


@pytest.mark.timeout(180)
def test_findings_and_refusals_are_shown(server, open_page):
    (server.home / "page.json").write_text("<!doctype html><html></html>")
    page = open_page()
    page.locator("#finetune-panel [role=tab][data-view=data]").click()
    choose(page, "shipped:messy-alpaca")
    expect(page.locator("#finetune-panel .st-findings")).to_contain_text("7 rows are left out: the answer is empty.")
    assert page.locator("#finetune-panel .st-finding.st-level-error").count() == 2
    choose(page, "page.json")
    expect(page.locator("#finetune-panel .st-is-bad")).to_contain_text("is a web page, not data")


@pytest.mark.timeout(180)
def test_hostile_content_is_only_text(server, open_page):
    evil = "<img src=x onerror='window.hacked=1'><script>window.hacked=1</script>"
    rows = [{"messages": [{"role": "user", "content": f"{evil} {i}"}, {"role": "assistant", "content": evil}]} for i in
            range(12)]
    (server.home / "evil.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (server.home / "cells.csv").write_text(f'"{evil}",b\n' + f'"{evil}",2\n' * 12)
    page = open_page()
    page.locator("#finetune-panel [role=tab][data-view=data]").click()
    choose(page, "cells.csv")
    expect(page.locator("#finetune-panel .st-level-error")).to_contain_text("<img src=x onerror")
    choose(page, "evil.jsonl")
    expect(page.locator("#finetune-panel .st-findings")).to_contain_text("HTML tags in 12 rows")
    page.locator("#finetune-panel [role=tab][data-view=preview]").click()
    expect(page.locator("#finetune-panel .st-token").first).to_be_visible(timeout=60_000)
    assert page.evaluate("window.hacked") is None
    assert page.locator("#finetune-panel img, #finetune-panel script").count() == 0
