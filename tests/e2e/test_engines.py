"""Engines in the browser: memory before loading, load and unload, a model served with its snippets, proposals measured."""

from __future__ import annotations

import os
from pathlib import Path

import httpx
import pytest

pytest.importorskip("playwright")
from playwright.sync_api import expect  # noqa: E402

WAIT = 120_000
SHOTS = os.environ.get("ATELIER_SHOTS")  # a folder for pictures of the views, for people


def shot(page, name: str) -> None:
    if SHOTS:
        page.screenshot(path=str(Path(SHOTS) / f"{name}.png"))


def fits(page) -> bool:
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth + 1")


@pytest.mark.timeout(900)
def test_load_serve_ask_stop_and_measure(server, open_page):
    page = open_page("?tab=chat&view=engines")
    needs = page.locator(".en-needs")
    expect(needs.locator(".en-total")).to_contain_text("free", timeout=WAIT)
    expect(needs.locator(".en-parts dd")).to_have_count(3)
    page.locator("[data-act=load]").click()
    expect(page.locator(".en-list article")).to_contain_text("ready", timeout=WAIT)
    expect(page.locator(".en-list .en-size")).to_contain_text("MB")

    # served: the key is shown, the address answers with it and not without
    page.locator("[data-act=serve]").click()
    page.locator("dialog [name=name]").fill("for-others")
    page.locator("dialog [type=submit]").click()
    card = page.locator("article[data-id]")
    expect(card).to_contain_text("ready", timeout=WAIT)
    address = card.locator("p code").first.inner_text()
    key = card.locator(".en-key code").inner_text()
    expect(card.locator("pre")).to_contain_text(f"{address}/chat/completions", timeout=WAIT)
    assert key not in card.locator("pre").inner_text() and len(key) > 20
    assert httpx.get(f"{address}/models", headers={"Authorization": f"Bearer {key}"}).json()["data"][0]["id"] == "for-others"
    assert httpx.get(f"{address}/models").status_code == 401
    card.locator("[data-kind=openai]").click()
    expect(card.locator("pre")).to_contain_text("from openai import OpenAI")
    shot(page, "engines-1440-light")

    # it survives a reload, and the key has to be asked for again
    page.reload()
    expect(card).to_contain_text(address, timeout=WAIT)
    card.locator("[data-act=about]").click()
    expect(card.locator(".en-key code")).to_contain_text("•••")
    card.locator("[data-act=key]").click()
    expect(card.locator(".en-key code")).to_have_text(key)
    assert fits(page)

    for name, width, height, dark in (("engines-1440-dark", 1440, 900, True), ("engines-390-light", 390, 844, False),
                                      ("engines-390-dark", 390, 844, True)):
        other = open_page("?tab=chat&view=engines", width, height, dark)
        expect(other.locator("article[data-id]")).to_contain_text(address, timeout=WAIT)
        expect(other.locator(".en-total")).to_be_visible(timeout=WAIT)
        assert fits(other), name
        shot(other, name)
        other.close()

    page.locator(".en-list [data-act=unload]").click()
    expect(page.locator(".en-list")).to_contain_text("No engine is loaded", timeout=WAIT)
    card.locator("[data-act=stop]").click()
    page.locator("dialog [type=submit]").click()
    expect(page.locator(".en-served").last).to_contain_text("Nothing is served", timeout=WAIT)
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"{address}/models", timeout=2)


@pytest.mark.timeout(600)
def test_proposals_are_measured_in_the_decoding_view(server, open_page):
    page = open_page("?tab=chat&view=decode")
    section = page.locator(".ls")
    expect(section.locator("[type=submit]")).to_be_visible(timeout=WAIT)
    page.locator("#lab-prompt").fill("Tell me a story.")
    section.locator("[data-assistant]").click()
    page.locator(".ch-picker [role=option]").first.click()
    section.locator("[name=spec-rounds]").fill("99")
    section.locator("[type=submit]").click()
    expect(section.locator(".st-is-bad")).to_contain_text("rounds must be between", timeout=WAIT)
    section.locator("[name=spec-rounds]").fill("1")
    section.locator("[type=submit]").click()
    rows = section.locator("tbody tr")
    expect(rows).to_have_count(3, timeout=WAIT)
    expect(rows.nth(0)).to_contain_text("× 1.00")
    for n in (1, 2):
        expect(rows.nth(n)).to_contain_text("yes")
    expect(rows.nth(2)).to_contain_text("%")
    section.scroll_into_view_if_needed()
    rows.nth(2).scroll_into_view_if_needed()
    shot(page, "speculative-1440-light")
    page.set_viewport_size({"width": 390, "height": 844})
    rows.nth(0).scroll_into_view_if_needed()
    assert fits(page)
    shot(page, "speculative-390-light")
    dark = open_page("?tab=chat&view=decode", 1440, 900, True)
    dark.locator(".ls [name=spec-rounds]").fill("1", timeout=WAIT)
    dark.locator(".ls [type=submit]").click()
    expect(dark.locator(".ls tbody tr")).to_have_count(2, timeout=WAIT)
    dark.locator(".ls tbody tr").nth(1).scroll_into_view_if_needed()
    shot(dark, "speculative-1440-dark")
    dark.set_viewport_size({"width": 390, "height": 844})
    dark.locator(".ls tbody tr").nth(0).scroll_into_view_if_needed()
    shot(dark, "speculative-390-dark")
