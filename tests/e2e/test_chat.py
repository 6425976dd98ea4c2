"""The Chat tab in a real browser, with real engine processes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import Server

ROOT = Path(__file__).resolve().parents[2]
SLOW = 90_000  # ms; an engine imports torch, and a busy machine takes its time
LONG = {"temperature": "0", "max_tokens": "450"}


@pytest.fixture(scope="module")
def server(browser, tmp_path_factory):
    """One studio for all of these tests, because engines that are loaded once make them quick."""
    before = os.environ.get("STUDIO_HOME")
    made = Server(tmp_path_factory.mktemp("home"))
    os.environ["STUDIO_HOME"] = str(made.home)
    from studio.chat import manager

    made.start()
    yield made
    manager.shutdown_all()
    made.stop()
    os.environ.pop("STUDIO_HOME") if before is None else os.environ.__setitem__("STUDIO_HOME", before)


@pytest.fixture
def engines(server, monkeypatch):
    monkeypatch.setenv("STUDIO_HOME", str(server.home))
    from studio.chat import manager

    return manager


@pytest.fixture
def expect():
    from playwright.sync_api import expect

    expect.set_options(timeout=30_000)
    return expect


def chat(open_page, models: str = "starter,starter", **options):
    page = open_page(f"?tab=chat&models={models}", **options)
    page.wait_for_selector("#chat-prompt")
    return page


def setting(page, **values: str) -> None:
    """Changes settings of all columns."""
    page.click("#chat-settings")
    for name, value in values.items():
        page.fill(f"#chat-set-{name}", value)
    page.click("#chat-settings")


def send(page, text: str) -> None:
    page.fill("#chat-prompt", text)
    page.press("#chat-prompt", "Enter")


def rested(page, expect) -> None:
    expect(page.locator(".ch")).to_have_attribute("aria-busy", "false", timeout=SLOW)


def column(page, n: int):
    return page.locator(".ch-col").nth(n)


def make_babbler(home: Path) -> str:
    """The starter without an end of its turn, as a folder in the workspace: it talks until it is stopped."""
    folder = home / "babbler"
    if folder.exists():
        return str(folder)
    shutil.copytree(ROOT / "assets" / "starter", folder)
    for name, key, value in (("tokenizer_config.json", "eos_token", "<|pad|>"), ("config.json", "eos_token_id", 0),
                             ("generation_config.json", "eos_token_id", 0)):
        (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | {key: value}))
    return str(folder)


def make_adapter(home: Path) -> str:
    """A small random adapter of the starter, as a folder in the workspace."""
    code = ("import sys, torch\n"
            "from peft import LoraConfig, get_peft_model\n"
            "from transformers import AutoModelForCausalLM\n"
            "torch.manual_seed(1)\n"
            "model = AutoModelForCausalLM.from_pretrained(sys.argv[1])\n"
            "config = LoraConfig(r=4, lora_alpha=16, target_modules='all-linear', init_lora_weights=False)\n"
            "get_peft_model(model, config).save_pretrained(sys.argv[2])")
    out = str(home / "tuned")
    subprocess.run([sys.executable, "-c", code, str(ROOT / "assets" / "starter"), out], check=True, timeout=180)
    return out


def test_one_prompt_streams_into_both_columns_and_says_how_fast(open_page, server, expect, engines):
    tuned = make_adapter(server.home)
    page = chat(open_page, f"starter,{tuned}")
    setting(page, max_tokens="48")
    send(page, "Tell me a story.")
    expect(page.locator(".ch-live")).to_have_count(2)
    rested(page, expect)
    answers = [column(page, n).get_by_test_id("bot").inner_text() for n in (0, 1)]
    assert all(len(answer) > 10 for answer in answers) and answers[0] != answers[1]
    for n in (0, 1):
        line = column(page, n).locator(".ch-status").inner_text()
        assert all(re.search(fact, line) for fact in (r"[\d.]+ s to first token", r"\d+ tokens/s", r"\d+ tokens\b"))
    running = [e for e in engines.engines() if e["base"] in ("starter", tuned)]
    assert len(running) == 1 and running[0]["adapters"] == [tuned], "a base and its adapter share one engine"
    assert "chat=" in page.url and page.input_value("#chat-prompt") == ""


def test_without_a_tuned_model_the_second_column_says_what_to_do(open_page, expect):
    page = open_page("?tab=chat")
    expect(column(page, 0).locator(".ch-pick")).to_contain_text("Starter")
    expect(column(page, 1)).to_contain_text("No model in this column")
    setting(page, temperature="0")
    column(page, 0).get_by_role("button", name="What is the opposite of hot?").click()
    rested(page, expect)
    expect(column(page, 0).get_by_test_id("bot")).to_contain_text("cold")
    expect(column(page, 1).get_by_test_id("user")).to_have_count(0)


def test_stop_keeps_what_was_said_and_esc_is_stop(open_page, server, expect):
    model = make_babbler(server.home)
    page = chat(open_page, f"{model},{model}")
    setting(page, **LONG)
    for how in (lambda: page.keyboard.press("Escape"), lambda: page.click("#chat-stop")):
        send(page, "Tell me a story.")
        expect(column(page, 0).locator(".ch-live .ch-text p").first).to_be_visible(timeout=SLOW)
        how()
        rested(page, expect)
        expect(column(page, 0).locator(".ch-status")).to_contain_text("stopped")
        assert column(page, 0).get_by_test_id("bot").last.inner_text()


def test_retry_edit_and_copy(open_page, expect):
    page = chat(open_page)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    setting(page, temperature="0")
    send(page, "What is the opposite of hot?")
    rested(page, expect)
    first = column(page, 0).locator(".ch-bot .ch-text").inner_text()
    copy = column(page, 0).get_by_role("button", name="Copy this message").last
    copy.click()
    expect(copy).to_have_class(re.compile("ch-done"))
    assert page.evaluate("navigator.clipboard.readText()") == first
    column(page, 0).get_by_role("button", name="Answer again").click()
    rested(page, expect)
    assert column(page, 0).locator(".ch-bot .ch-text").inner_text() == first, "greedy, so the same again"
    expect(column(page, 0).locator(".ch-pager")).to_contain_text("2/2")  # the first answer is not lost
    column(page, 0).get_by_role("button", name="The answer before").click()
    expect(column(page, 0).locator(".ch-pager")).to_contain_text("1/2")
    assert column(page, 0).get_by_test_id("user").count() == 1
    column(page, 1).get_by_test_id("user").hover()
    column(page, 1).get_by_role("button", name="Edit and ask again from here").click()
    page.keyboard.press("Control+a")
    page.keyboard.type("What is the opposite of big?")
    page.keyboard.press("Enter")
    for n in (0, 1):
        expect(column(page, n).get_by_test_id("user")).to_have_text(re.compile("opposite of big"))
    rested(page, expect)
    assert column(page, 0).locator(".ch-bot .ch-text").inner_text() != first


def test_four_columns_stream_at_once(open_page, expect):
    page = chat(open_page, "starter,starter,starter,starter")
    setting(page, temperature="0.9", max_tokens="400")
    page.evaluate("""() => { window.seen = []; window.watching = setInterval(() => window.seen.push([...document.querySelectorAll('.ch-col')].map((column) =>
        [column.querySelector('.ch-bot .ch-text')?.textContent.length || 0, Boolean(column.querySelector('.ch-live'))])), 60); }""")
    send(page, "Tell me a story.")
    rested(page, expect)
    seen = page.evaluate("() => { clearInterval(window.watching); return window.seen; }")
    assert all(len(moment) == 4 for moment in seen[1:])
    assert any(all(length and live for length, live in moment) for moment in seen), "a moment at which all four are being written"
    for number in range(4):
        lengths = [moment[number][0] for moment in seen if len(moment) == 4]
        assert len(set(lengths)) >= 4 and lengths == sorted(lengths), f"column {number + 1} came in pieces and only grew"
        expect(column(page, number).locator("[data-stat=speed]")).to_be_visible()
    assert len({column(page, number).locator(".ch-bot .ch-text").inner_text() for number in range(4)}) > 1, "each with its own chance"


def test_a_chat_branches_and_is_taken_along(open_page, expect):
    page = chat(open_page)
    setting(page, temperature="0")
    for question in ("What is the opposite of hot?", "What does a cow say?"):
        send(page, question)
        rested(page, expect)
    chats = page.locator("#chat-list .ch-row")  # of the other tests too
    before = chats.count()
    column(page, 0).locator(".ch-bot").first.hover()
    column(page, 0).locator(".ch-bot").first.get_by_role("button", name="Go on from here in a new chat").click()
    expect(chats).to_have_count(before + 1)
    expect(column(page, 0).get_by_test_id("bot")).to_have_count(1)

    page.locator("#chat-take").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Take", exact=True).click()
    assert "**You:**" in download.value.path().read_text() and "cow" not in download.value.path().read_text()
    page.locator("#chat-take").click()
    page.get_by_label("Rows in the Dataset tab").check()
    page.get_by_role("button", name="Take", exact=True).click()
    page.wait_for_function("studio.tabNow() === 'data'")
    expect(page.locator("#data-view")).to_contain_text("chat-What-is-the-opposite-of-hot")


def test_a_column_that_fails_says_why_and_the_others_go_on(open_page, expect):
    page = chat(open_page, "starter,http://127.0.0.1:9/v1")
    setting(page, temperature="0")
    send(page, "What is the opposite of hot?")
    rested(page, expect)
    expect(column(page, 0).get_by_test_id("bot")).to_contain_text("cold")
    expect(column(page, 1).get_by_role("alert")).to_contain_text("There is no chat server at http://127.0.0.1:9/v1")
    column(page, 1).locator(".ch-pick").click()
    page.get_by_role("combobox", name="Model").fill("starter")
    page.keyboard.press("Enter")
    column(page, 1).get_by_role("button", name="Answer again").click()
    rested(page, expect)
    expect(column(page, 1).get_by_test_id("bot")).to_contain_text("cold")


def test_a_killed_engine_is_told_of_and_comes_back_with_the_next_message(open_page, server, expect, engines):
    model = make_babbler(server.home)
    page = chat(open_page, f"starter,{model}")
    setting(page, **LONG)
    send(page, "What is the opposite of hot?")
    expect(column(page, 1).locator(".ch-live .ch-text p").first).to_be_visible(timeout=SLOW)
    os.kill(next(e["pid"] for e in engines.engines() if e["base"] == model), signal.SIGKILL)
    expect(column(page, 1).get_by_role("alert")).to_contain_text("stopped in the middle")
    rested(page, expect)
    expect(column(page, 0).get_by_test_id("bot")).to_contain_text("cold")
    setting(page, max_tokens="30")
    column(page, 1).get_by_role("button", name="Answer again").click()
    rested(page, expect)
    expect(column(page, 1).get_by_role("alert")).to_have_count(0)
    assert column(page, 1).get_by_test_id("bot").inner_text()


def test_a_chat_survives_reload_and_a_killed_studio(open_page, server, expect):
    model = make_babbler(server.home)
    page = chat(open_page, f"{model},{model}")
    setting(page, **LONG)
    send(page, "Tell me a story.")
    expect(column(page, 0).locator(".ch-live .ch-text p").first).to_be_visible(timeout=SLOW)
    page.reload()
    page.wait_for_selector(".ch-msg")
    assert column(page, 0).get_by_test_id("user").inner_text().startswith("Tell me a story.")
    rested(page, expect)
    said = [column(page, n).get_by_test_id("bot").inner_text() for n in (0, 1)]
    assert all(len(text) > 300 for text in said), "the answers went on while the page was away"
    page.click("#chat-settings")
    assert page.input_value("#chat-set-max_tokens") == LONG["max_tokens"]
    server.kill()
    server.start()
    page.reload()
    page.wait_for_selector(".ch-msg")
    assert [column(page, n).get_by_test_id("bot").inner_text() for n in (0, 1)] == said


def test_history_is_searched_renamed_and_deleted(open_page, expect):
    page = chat(open_page)
    for text in ("What is the opposite of zebra?", "Where is the zebra?"):
        page.click("#chat-new")
        send(page, text)
        rested(page, expect)
    rows = page.locator(".ch-row")
    page.fill("#chat-search", "ZEBRA")
    expect(rows).to_have_count(2)
    page.fill("#chat-search", "opposite of zebra")
    expect(rows).to_have_count(1)
    rows.first.locator(".ch-item").click()
    expect(page.locator("#chat-title")).to_have_text("What is the opposite of zebra?")
    expect(column(page, 0).get_by_test_id("user")).to_contain_text("opposite of zebra")
    rows.first.hover()
    rows.first.get_by_role("button", name="Rename chat").click()
    page.get_by_role("dialog").get_by_role("textbox").fill("Opposites <b>")
    page.get_by_role("dialog").get_by_role("button", name="Rename").click()
    expect(page.locator("#chat-title")).to_have_text("Opposites <b>")
    rows.first.hover()
    rows.first.get_by_role("button", name="Delete chat").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(rows).to_have_count(0)
    page.fill("#chat-search", "zebra")
    expect(rows).to_have_count(1)


def test_columns_own_settings_and_the_limit_of_four(open_page, expect):
    page = chat(open_page)
    setting(page, temperature="0")
    column(page, 1).get_by_role("button", name="Own settings for this column").click()
    column(page, 1).get_by_role("checkbox").check()
    box = column(page, 1).get_by_label("Temperature")
    box.fill("0")
    column(page, 1).get_by_label("Longest answer").fill("3")
    send(page, "Count from 3 to 8.")
    rested(page, expect)
    expect(column(page, 1).locator(".ch-status")).to_contain_text("cut off at the longest answer")
    expect(column(page, 0).get_by_test_id("bot")).to_contain_text("8")
    for _ in range(2):
        page.click("#chat-add")
        page.keyboard.type("star")
        page.keyboard.press("Enter")
    expect(page.locator(".ch-col")).to_have_count(4)
    expect(page.locator("#chat-add")).to_be_hidden()
    column(page, 3).get_by_role("button", name="Remove this column").click()
    expect(page.locator(".ch-col")).to_have_count(3)
    page.click("#chat-settings")
    page.fill("#chat-set-top_p", "7")
    expect(page.locator("#chat-set-top_p")).to_have_attribute("aria-invalid", "true")


def test_what_models_and_people_write_never_becomes_markup(open_page, expect):
    page = chat(open_page)
    evil = ("<img src=x onerror=\"document.title='pwned'\"> **bold** `code` [x](javascript:alert(1)) "
            "<script>document.title='pwned'</script>")
    html = page.evaluate("text => studio.markdown(text)", evil)
    assert "<img" not in html and "<script" not in html and "href" not in html
    assert "<strong>bold</strong>" in html and "<code>code</code>" in html
    rich = ("# T\n\n- a\n  - b\n- c\n\n1. x\n2. y\n\n```py\n<b>&\n```\n\n| h | k |\n|---|---|\n| 1 | 2 |\n\n"
            "[s](https://e.org/?a=1&b=2)")
    html = page.evaluate("text => studio.markdown(text)", rich)
    for part in ("<h3>T</h3>", "<ul><li>a<ul><li>b</li></ul></li><li>c</li></ul>", "<ol><li>x</li><li>y</li></ol>",
                 "&lt;b&gt;&amp;", "<td>1</td>", 'href="https://e.org/?a=1&amp;b=2"'):
        assert part in html, part
    send(page, evil)
    rested(page, expect)
    assert page.title() != "pwned" and page.locator(".ch-msg img").count() == 0


def test_another_tab_opens_the_chat_with_its_models(open_page, expect):
    page = open_page()
    page.evaluate("studio.open('chat', {models: ['starter', 'http://127.0.0.1:9/v1#other']})")
    expect(column(page, 0).locator(".ch-pick")).to_contain_text("Starter")
    expect(column(page, 1).locator(".ch-pick")).to_contain_text("127.0.0.1:9 · other")
    page.evaluate("studio.open('chat', {models: ['starter', 'starter']})")
    expect(column(page, 1).locator(".ch-pick")).to_contain_text("Starter")


def test_the_keyboard_is_enough(open_page, expect):
    page = open_page("?tab=chat")
    expect(page.locator("#chat-prompt")).to_be_visible()
    pick = column(page, 1).locator(".ch-pick")
    pick.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("listbox", name="Models")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("listbox", name="Models")).to_have_count(0)
    expect(pick).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(pick).to_contain_text("Starter")
    expect(page.locator("#chat-prompt")).to_be_focused()
    page.keyboard.type("two")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("lines")
    assert page.input_value("#chat-prompt") == "two\nlines"
    page.keyboard.press("Enter")
    expect(column(page, 0).get_by_test_id("user")).to_have_text(re.compile("two\\s+lines"))
    rested(page, expect)


@pytest.mark.parametrize("width, dark", [(1440, False), (390, True)])
def test_nothing_is_wider_than_the_window(open_page, expect, width, dark):
    page = chat(open_page, "starter,starter", width=width, height=844, dark=dark)
    expect(column(page, 1).locator(".ch-pick")).to_contain_text("Starter")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for selector in ("#chat-prompt", "#chat-settings", "#chat-send"):
        box = page.locator(selector).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width and box["y"] + box["height"] <= 844
    paint = page.locator("#chat-send").evaluate("button => getComputedStyle(button).backgroundColor")
    assert paint != "rgba(0, 0, 0, 0)", "the button can be seen"
    page.wait_for_function("""() => {
        const box = document.querySelector("#chat-prompt").getBoundingClientRect();
        return document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2).id === "chat-prompt";
    }""")  # nothing lies over it
