"""Tools in the browser: a call and its result, a real MCP server with its risk named and each call confirmed, switches, a telephone."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import expect  # noqa: E402

from tests.llm_stand_in import Asked, StandIn  # noqa: E402

SHOP = f"{sys.executable} {Path(__file__).resolve().parents[1] / 'mcp_server.py'} stdio"


def caller(asked: Asked) -> str:
    """A model that calls tools in words, one for each kind of question, and answers from the result."""
    if asked.last.startswith("<tool_response>"):
        return "The tool says: " + re.findall(r'"content": "(.*?)"}', asked.last)[-1]
    name, arguments = ("calculator", {"expression": "1234 * 5678"}) if "1234" in asked.last else ("shop__price", {"fruit": "pears", "count": 3})
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


@pytest.mark.timeout(600)
def test_calls_are_shown_and_those_of_mcp_servers_confirmed(server, open_page):
    with StandIn(caller, refuse=("tools",)) as model:
        page = open_page("?tab=chat&view=tools")
        expect(page.locator(".tl-side")).to_contain_text("calculator")
        page.locator(".tl [data-model]").click()
        page.locator(".ch-picker input").fill(model.address)
        page.keyboard.press("Enter")
        page.locator("[data-example]", has_text="1234").click()
        expect(page.locator(".tl-log .ch-bot").last).to_contain_text("The tool says: 7006652")
        call = page.locator(".tl-call")
        expect(call).to_have_count(1)
        expect(call.locator("summary")).to_contain_text("calculator")
        expect(call.locator(".tl-open")).to_be_hidden()
        call.locator("summary").click()
        expect(call.locator(".tl-open")).to_contain_text("7006652")

        page.locator(".tl-side [data-add]").click()
        dialog = page.locator(".tl-dialog")
        expect(dialog).to_contain_text("can do whatever you can")
        dialog.locator("[name=name]").fill("shop")
        dialog.locator("[name=command]").fill(SHOP)
        dialog.locator("[name=secret]").fill("SHOP_TOKEN")
        dialog.locator("[name=value]").fill("tok-12345")
        dialog.locator("[type=submit]").click()
        expect(dialog.locator(".st-error")).to_contain_text("Nobody has agreed")
        dialog.locator("[name=understood]").check()
        dialog.locator("[type=submit]").click()
        expect(page.locator(".tl-server")).to_contain_text("price")
        expect(page.locator(".tl-server")).to_contain_text("Secrets: SHOP_TOKEN")
        assert "tok-12345" not in page.content()
        switch = page.locator("[data-tool=shop__price]")
        expect(switch).not_to_be_checked()
        switch.check()

        page.locator("#tools-prompt").fill("What do three pears cost?")
        page.keyboard.press("Enter")
        confirm = page.locator(".tl-confirm")
        expect(confirm).to_contain_text("wants to call shop__price of the MCP server shop")
        expect(page.locator(".tl-call.tl-waiting .tl-open")).to_contain_text("pears")
        page.reload()  # the call still waits
        expect(page.locator(".tl-confirm")).to_be_visible()
        page.locator("[data-choice=no]").click()
        expect(page.locator(".tl-call").last).to_contain_text("Refused")
        expect(page.locator("[data-send]")).to_be_visible()
        page.locator("#tools-prompt").fill("Please, the pears?")
        page.keyboard.press("Enter")
        page.locator("[data-choice=chat]").click()
        expect(page.locator(".tl-log .ch-bot").last).to_contain_text("3 pears cost 12 coins.")
        expect(page.locator("[data-send]")).to_be_visible()
        page.locator("#tools-prompt").fill("And again the pears?")
        page.keyboard.press("Enter")
        expect(page.locator(".tl-call")).to_have_count(4)
        expect(page.locator(".tl-call").last).to_contain_text("Done")

        small = open_page("?tab=chat&view=tools", width=390, height=844)
        expect(small.locator(".tl-log")).to_contain_text("needs a tool")
        small.locator(".tl-chats").select_option(index=1)
        expect(small.locator(".tl-call")).to_have_count(4)
        assert small.evaluate("document.documentElement.scrollWidth") <= 390
    assert "tok-12345" not in (server.home / "ui.log").read_text()
