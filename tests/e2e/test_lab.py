"""The lab's views in the browser: ways of decoding with a branch taken, and a text under a tokenizer."""

from __future__ import annotations

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import expect  # noqa: E402

WAIT = 120_000


@pytest.mark.timeout(600)
def test_decode_three_ways_take_a_branch_and_cut_a_text(server, open_page):
    page = open_page("?tab=chat&view=decode")
    columns = page.locator(".ld article")
    expect(columns).to_have_count(3, timeout=WAIT)
    page.locator("#lab-prompt").fill("Tell me a story.")
    page.locator(".ld-ask [type=submit]").click()
    expect(page.locator(".ld-text")).to_have_count(3, timeout=WAIT)
    greedy = columns.nth(0).locator(".ld-text").inner_text()
    expect(columns.nth(2).locator(".ld-tree path.ld-best").first).to_be_attached()

    # another token than the likeliest, and the answer goes on from there
    columns.nth(0).locator(".ld-t").nth(1).click()
    others = columns.nth(0).locator(".ld-others button")
    expect(others).to_have_count(8)
    expect(columns.nth(0).locator(".ld-chosen")).to_be_disabled()
    others.nth(1).click()
    expect(columns.nth(0).locator(".ld-given")).to_have_count(2, timeout=WAIT)
    assert columns.nth(0).locator(".ld-text").inner_text() != greedy
    columns.nth(0).locator("[data-back]").click()
    assert columns.nth(0).locator(".ld-text").inner_text() == greedy

    # a setting out of bounds is told in its column, the others stay; what was set survives a reload
    columns.nth(1).locator("[name=temperature]").fill("99")
    columns.nth(1).locator("[name=temperature]").press("Tab")
    columns.nth(1).locator("[data-again]").click()
    expect(columns.nth(1)).to_contain_text("temperature must be between", timeout=WAIT)
    expect(page.locator(".ld-text")).to_have_count(2)
    page.reload()
    expect(page.locator(".ld [name=temperature]")).to_have_value("99", timeout=WAIT)

    page.locator("#chat-tab-tokens").click()
    expect(page.locator(".lt-t").first).to_be_visible(timeout=WAIT)
    page.locator("#lab-text").fill("Hello Hello")
    expect(page.locator("#chat-tokens .lt-text")).to_have_text("Hello·Hello", timeout=WAIT)
    page.locator("[data-template]").check()
    expect(page.locator(".lt-special").first).to_contain_text("<|im_start|>", timeout=WAIT)
    expect(page.locator(".lt-languages tbody tr")).to_have_count(9)
