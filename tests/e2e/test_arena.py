"""The arena in the browser: ten blind votes, their ranking, the preferences that Align opens with."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import expect  # noqa: E402

from tests.llm_stand_in import StandIn  # noqa: E402


@pytest.mark.timeout(600)
def test_ten_blind_votes_become_a_ranking_and_preferences(server, open_page):
    (server.home / "uploads" / "asked.jsonl").write_text(
        "".join(json.dumps({"prompt": f"What is number {i}?", "completion": "x"}) + "\n" for i in range(12)))
    with StandIn(lambda asked: "Gladly: it is a number.") as polite, StandIn(lambda asked: "No.") as short:
        page = open_page("?tab=chat&view=arena")
        page.locator(".ar-side [data-setup]").click()
        dialog = page.locator(".ar-dialog")
        dialog.locator("[type=submit]").click()
        expect(dialog.locator(".st-error")).to_contain_text("two to 32 models")
        for one in (polite, short):
            dialog.locator("[data-add]").click()
            page.locator(".ch-picker input").fill(one.address)
            page.keyboard.press("Enter")
        dialog.locator("[name=dataset]").select_option("uploads/asked.jsonl")
        dialog.locator("[type=submit]").click()
        expect(page.locator(".ar-sides")).to_contain_text("12 prompts wait")
        asked = set()
        for i in range(10):
            page.locator("[data-next]").click()
            expect(page.locator("[data-vote=a]")).to_be_enabled()
            asked.add(page.locator(".ar-asked p").inner_text())
            assert "127.0.0.1" not in page.locator(".ar-main").inner_text(), "no names before the vote"
            better = "a" if "Gladly" in page.locator("[data-side=a] .ch-text").inner_text() else "b"
            if i % 2:
                page.locator(f"[data-vote={better}]").click()
            else:
                page.locator(".ar-asked").click()
                page.keyboard.press(better)
            expect(page.locator(".ar-told")).to_contain_text(f"You preferred 127.0.0.1:{polite.port}")
        assert len(asked) == 10
        expect(page.locator(".ar-side")).to_contain_text("10 votes")
        rows = page.locator(".ar-table tbody tr")
        expect(rows).to_have_count(2)
        expect(rows.first).to_contain_text(f"127.0.0.1:{polite.port}")
        expect(rows.first.locator("td").last).to_contain_text("10")
        expect(page.locator(".ar-matrix")).to_contain_text("100 %")

        page.reload()  # the view is in the address, the votes are kept
        expect(page.locator(".ar-side")).to_contain_text("10 votes")
        page.locator("[data-dataset]").click()
        page.wait_for_function("studio.forms?.align?.values?.dataset?.startsWith('uploads/arena-votes')")
        kept = page.evaluate("studio.forms.align.values")
        assert kept["method"] == "dpo"
        rows = [json.loads(line) for line in (server.home / kept["dataset"]).read_text().splitlines()]
        assert len(rows) == 10 and all(row["chosen"][0]["content"].startswith("Gladly") for row in rows)
        assert page.evaluate("studio.tabNow()") == "align"
