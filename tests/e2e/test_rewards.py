"""Rewards are chosen in the form, mended where they are wrong, and tried before anything starts."""

from __future__ import annotations

from playwright.sync_api import expect


def test_rewards_are_chosen_and_tried(open_page):
    page = open_page("?tab=align")
    page.wait_for_function("window.studio?.forms?.align?.values", timeout=60_000)
    page.evaluate("studio.send('open_align', {values: {kind: 'align', method: 'grpo', dataset: 'shipped:harder-sums', "
                  "rewards: [{name: 'number', weight: 2}]}})")
    box = page.locator("#align-rewards")
    expect(box.locator(".rw-card")).to_have_count(1)
    box.get_by_role("button", name="Add a reward").click()
    box.locator("[data-pick=regex]").click()
    expect(box.locator(".rw-card")).to_have_count(2)
    page.wait_for_function("studio.forms.align.errors.rewards", timeout=60_000)
    box.get_by_role("button", name="Try on a few samples").click()
    expect(box.locator(".rw-card").nth(1)).to_contain_text("There is no pattern")
    expect(box.locator(".rw-found")).to_contain_text("There is no pattern", timeout=60_000)
    box.locator("[name=form]").select_option("sentence")
    page.wait_for_function("studio.forms.align.values.rewards[1].form === 'sentence' && !studio.forms.align.errors.rewards",
                           timeout=60_000)
    box.get_by_role("button", name="Try on a few samples").click()
    rows = box.locator(".rw-found tbody").first.locator("tr")
    expect(rows).to_have_count(3, timeout=120_000)
    expect(rows.nth(1)).to_contain_text("84 + 13 is 97.")
    expect(rows.nth(1).locator(".rw-total")).to_have_text("3")
    expect(rows.nth(2)).to_contain_text("expected 97, got 98")
    box.locator("[data-act=up]").nth(1).click()
    box.locator("[data-act=remove]").nth(1).click()
    page.wait_for_function("JSON.stringify(studio.forms.align.values.rewards) === '[{\"name\":\"regex\",\"form\":\"sentence\"}]'",
                           timeout=60_000)
