"""The views of a dataset in the browser: the table of rows, edits, the review by keyboard, statistics and the doctor."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import expect  # noqa: E402

WORDS = "river mountain bread train signal window garden theory model wheel copper paper".split()


def make(home: Path, name: str, rows: Iterable[dict[str, Any]], held_out: int = 0, dropped: int = 0) -> str:
    """A version in the library, written as a step would. Returns its reference."""
    from studio.datasets import step
    from studio.datasets.version import Writer
    from studio.library import artifacts

    folder = home / "made" / name
    with Writer(folder, {"short": "are too short"}) as out:
        for number, row in enumerate(rows):
            out.split = "validation" if number < held_out else "train"
            out.add(row, "ab"[number % 2] + ".jsonl")
        for number in range(dropped):
            out.reject("short", f"{number} characters", "a.jsonl", {"text": "x" * number})
        version = out.close({"method": "import", "sources": [f"{name}.jsonl"]})
    return artifacts.add("dataset", name, version.path, meta=step.facts_of(version))["ref"]


def chats(count: int) -> Iterable[dict[str, Any]]:
    for i in range(count):
        said = " ".join(WORDS[(i * k) % len(WORDS)] for k in range(2, 6 + i % 7))
        turns = [{"role": "user", "content": f"Question {i}: what is a {said}?"},
                 {"role": "assistant", "content": f"Answer {i}: it is a {said}."}]
        yield {"messages": turns * (1 + i % 3)}


def rows_of(page, view: str = "rows") -> Any:
    return page.locator(f"#data-view-{view} .st-dv-row[data-i]")


def opened(open_page, ref: str, view: str = "", **window: Any) -> Any:
    page = open_page(f"?tab=data&data={ref}" + (f"&view={view}" if view else ""), **window)
    expect(page.locator(f"#data-tab-{view or 'rows'}")).to_have_attribute("aria-selected", "true")
    return page


def found(page, text: str) -> None:
    expect(page.locator("#data-view-rows .st-dv-count")).to_have_text(text)


@pytest.mark.timeout(300)
def test_a_hundred_thousand_rows_scroll_sort_and_filter(home, server, open_page):
    ref = make(home, "many", chats(100_000), held_out=50, dropped=5)
    page = opened(open_page, ref)
    found(page, "99,950 rows")
    expect(rows_of(page).first).to_contain_text("Question 50:")
    assert rows_of(page).count() < 60  # only what is in sight is in the page
    grid = page.get_by_role("grid", name="Rows")
    grid.focus()
    page.keyboard.press("End")
    expect(rows_of(page).last).to_contain_text("Question 99999:")
    assert grid.get_attribute("aria-activedescendant") == "st-dv-r-99949"
    page.keyboard.press("Home")
    expect(rows_of(page).first).to_contain_text("Question 50:")
    grid.evaluate("e => e.scrollTop = e.scrollHeight / 2")  # the thumb dragged to the middle
    expect(page.locator("#st-dv-r-49975")).to_contain_text("Question 50025:")
    grid.get_by_role("button", name="Length").click()
    expect(page.locator(".st-dv-c-chars[role=columnheader]")).to_have_attribute("aria-sort", "descending")
    expect(page.locator("#st-dv-r-0")).to_be_visible()
    lengths = [int(text.replace(",", "")) for text in rows_of(page).locator(".st-dv-c-chars").all_inner_texts()]
    assert lengths == sorted(lengths, reverse=True) and lengths[0] > 300
    page.get_by_role("searchbox", name="Search in all texts").fill("question 4321")
    found(page, "11 of 99,950 rows")
    assert rows_of(page).locator("mark").first.inner_text().lower() == "question 4321"
    page.get_by_role("button", name="Search by regular expression").click()
    page.get_by_role("searchbox", name="Search in all texts").fill(r"Question 4321:|Question 77\d{3}:")
    found(page, "1,001 of 99,950 rows")
    page.get_by_role("searchbox", name="Search in all texts").fill("(never closed")
    expect(page.locator("#data-view-rows .st-dv-count")).to_contain_text("This is no regular expression")
    page.get_by_role("searchbox", name="Search in all texts").fill("")
    found(page, "99,950 rows")
    page.get_by_role("button", name="Turns").first.click()
    page.get_by_role("dialog", name="Turns").get_by_label("From").fill("6")
    page.keyboard.press("Enter")
    found(page, "33,317 of 99,950 rows")
    page.locator("[data-filter=source]").click()
    page.get_by_role("dialog", name="Source").get_by_label("a.jsonl").check()
    page.keyboard.press("Escape")
    found(page, "16,659 of 99,950 rows")
    expect(page.locator("[data-filter=source]")).to_contain_text("a.jsonl")
    page.get_by_role("button", name="Clear all").click()
    page.get_by_role("radio", name="Left out").click()
    found(page, "5 rows")
    expect(rows_of(page).nth(3)).to_contain_text("are too short 3 characters")


@pytest.mark.timeout(300)
def test_more_rows_than_a_browser_can_lay_out(home, server, open_page):
    """The scrollbar maps positions above 350,000 rows; here a million and a half rows repeat thirty real ones."""
    make(home, "few", chats(30))
    page = open_page("?tab=finetune")
    page.evaluate("""() => {
      const call = studio.call, real = {};
      studio.call = async (name, values) => {
        if (name !== "data_rows") return call(name, values);
        real.rows ??= (await call(name, { ref: values.ref, query: { split: "train" }, offset: 0, limit: 30 })).rows;
        const rows = Array.from({ length: Math.min(values.limit, 1500000 - values.offset) }, (_, i) => ({ ...real.rows[i % 30], pos: values.offset + i }));
        return { total: 1500000, matching: 1500000, ms: 1, rows };
      };
    }""")
    page.locator("#tab-data-button").click()
    found(page, "1,500,000 rows")
    grid = page.get_by_role("grid", name="Rows")
    assert grid.evaluate("e => e.scrollHeight") < 17_000_000
    grid.focus()
    page.keyboard.press("End")
    expect(rows_of(page).last.locator(".st-dv-c-pos")).to_have_text("1,500,000")
    page.keyboard.press("ArrowUp")
    expect(page.locator("#st-dv-r-1499998.st-dv-cursor")).to_be_visible()
    grid.evaluate("e => e.scrollTop = (e.scrollHeight - e.clientHeight) / 2")
    page.wait_for_function("Math.abs(Number(document.querySelector('.st-dv-row[data-i]')?.dataset.i) - 750000) < 60")
    before = page.evaluate("Number(document.querySelector('.st-dv-row[data-i]').dataset.i)")
    grid.hover()
    page.mouse.wheel(0, 340)  # ten rows, not ten thousand
    page.wait_for_function("(b) => { const i = Number(document.querySelector('.st-dv-row[data-i]')?.dataset.i); return i - b >= 9 && i - b <= 11 }",
                           arg=before)


@pytest.mark.timeout(300)
def test_edit_undo_and_apply(home, server, open_page):
    ref = make(home, "small", chats(12))
    page = opened(open_page, ref)
    rows_of(page).nth(2).click()
    side = page.get_by_role("complementary", name="Open row")
    expect(side).to_contain_text("Answer 2: it is")
    side.get_by_role("button", name="Edit").click()
    side.get_by_role("textbox", name="Assistant 2").fill("Forty-two, said the machine.")
    page.keyboard.press("Control+Enter")
    expect(rows_of(page).nth(2)).to_contain_text("edited")
    expect(page.locator("#data-view-rows .st-dv-edits")).to_contain_text("1 pending edit")
    side.get_by_role("tab", name="Before the edit").click()
    expect(side).to_contain_text("Answer 2: it is")
    side.get_by_role("tab", name="JSON").click()
    side.get_by_role("button", name="Edit").click()
    side.get_by_role("textbox", name="JSON").fill("{ not json")
    side.get_by_role("button", name="Save").click()
    expect(side.get_by_role("alert")).to_contain_text("not valid JSON")
    side.get_by_role("textbox", name="JSON").fill(json.dumps({"messages": []}))
    side.get_by_role("button", name="Save").click()
    expect(side.get_by_role("alert")).not_to_contain_text("not valid JSON")  # the server refuses it at its place
    expect(side.get_by_role("alert")).to_be_visible()
    side.get_by_role("button", name="Cancel").click()
    side.get_by_role("button", name="Close").click()
    grid = page.get_by_role("grid", name="Rows")
    grid.focus()
    for key in ("Home", "Space", "Shift+ArrowDown", "Delete"):  # two rows by keyboard
        page.keyboard.press(key)
    expect(rows_of(page).nth(1)).to_contain_text("deleted")
    expect(rows_of(page).nth(0)).to_contain_text("deleted")
    page.keyboard.press("Control+z")
    expect(rows_of(page).nth(0)).not_to_contain_text("deleted")
    expect(rows_of(page).nth(1)).not_to_contain_text("deleted")
    page.keyboard.press("Control+Shift+z")
    expect(rows_of(page).nth(1)).to_contain_text("deleted")
    page.reload()
    expect(page.locator("#data-view-rows .st-dv-edits")).to_contain_text("2 pending edits")
    page.get_by_role("button", name="Apply edits as a new version").click()
    found(page, "10 rows")
    expect(page.locator("#data-view-rows .st-dv-edits")).not_to_contain_text("pending")
    page.get_by_role("searchbox", name="Search in all texts").fill("forty-two")
    found(page, "1 of 10 rows")
    from studio import api

    newest = api.data_list()[0]
    assert newest["parents"] == [ref] and newest["total"] == 10
    assert api.data_open(ref)["total"] == 12  # what was read is as it was


@pytest.mark.timeout(300)
def test_review_by_keyboard_survives_a_reload(home, server, open_page):
    ref = make(home, "reviewed", chats(90))
    page = opened(open_page, ref, "review")
    card = page.locator("#data-view-review .st-dv-card")
    said = page.locator("#data-view-review .st-dv-progress")
    expect(card).to_contain_text("Question 0:")
    for key, row in (("k", 1), ("d", 2), ("b", 3)):
        page.keyboard.press(key)
        expect(card).to_contain_text(f"Question {row}:")
    page.keyboard.press("n")
    page.keyboard.type("ask a nurse")
    page.keyboard.press("Enter")
    page.keyboard.press("r")
    answer = card.get_by_role("textbox", name="Assistant 2")
    expect(answer).to_be_focused()
    answer.fill("A better answer.")
    page.keyboard.press("Control+Enter")
    expect(card).to_contain_text("rewritten")
    expect(said).to_contain_text("4 of 90 reviewed")
    page.keyboard.press("ArrowRight")
    expect(card).to_contain_text("Question 4:")
    page.keyboard.press("d")
    expect(card).to_contain_text("Question 5:")
    page.keyboard.press("u")  # the row comes back, undecided
    expect(card).to_contain_text("Question 4:")
    expect(card.locator(".st-dv-state")).to_have_count(0)
    expect(said).to_contain_text("4 of 90 reviewed")
    page.reload()
    expect(card).to_contain_text("Question 4:")
    expect(said).to_contain_text("4 of 90 reviewed")
    expect(page.locator("#data-view-review .st-dv-tally")).to_have_text("kept 1 · dropped 1 · better 1 · rewritten 1")
    for _ in range(4, 44):  # faster than the server answers
        page.keyboard.press("k")
    expect(card).to_contain_text("Question 44:")
    for number in range(45, 90):  # past the rows fetched at first
        page.keyboard.press("k")
        expect(card).to_contain_text(f"Question {number}:")
    page.keyboard.press("k")
    expect(card).to_contain_text("Every row is reviewed")
    expect(said).to_contain_text("90 of 90 reviewed")
    page.get_by_role("button", name="Apply edits as a new version").click()
    page.wait_for_function("(ref) => studio.data.open && studio.data.open.ref !== ref", arg=ref)
    from studio import api

    made = api.data_open(api.data_list()[0]["ref"])
    assert made["total"] == 89
    kept = api.data_rows(made["ref"], limit=50)["rows"]
    assert kept[2]["row"]["messages"][1]["content"] == "A better answer."


@pytest.mark.timeout(300)
def test_pairs_are_judged_by_side_and_buttons_work_on_a_phone(home, server, open_page):
    ref = make(home, "pairs", ({"prompt": f"Pick {i}", "chosen": f"left {i}", "rejected": f"right {i}"} for i in range(5)))
    page = opened(open_page, ref, "review", width=390, height=844)
    card = page.locator("#data-view-review .st-dv-card")
    expect(card).to_contain_text("left 0")
    page.get_by_role("button", name="Left is better").click()
    expect(card).to_contain_text("left 1")
    page.get_by_role("button", name="Right is better").click()
    expect(card).to_contain_text("left 2")
    page.get_by_role("button", name="Back").click()
    expect(card).to_contain_text("worse")
    assert page.evaluate("document.documentElement.scrollWidth <= 390")
    page.get_by_role("button", name="Apply edits as a new version").click()
    page.wait_for_function("(ref) => studio.data.open && studio.data.open.ref !== ref", arg=ref)
    from studio import api

    rows = api.data_rows(api.data_list()[0]["ref"])["rows"]
    assert rows[0]["row"]["chosen"] == "left 0" and rows[1]["row"]["chosen"] == "right 1"


@pytest.mark.timeout(300)
def test_statistics_are_drawn_and_lead_to_their_rows(home, server, open_page):
    rated = [{"prompt": f"How do I {WORDS[i % 12]}?", "completion": f"So: {WORDS[i % 7]} " * (1 + i % 30), "label": i % 3 > 0,
              "tags": {"site": ["north", "south"][i % 2]}} for i in range(240)]
    ref = make(home, "rated", [*rated, *rated[:10]])
    page = opened(open_page, ref, "statistics")
    page.get_by_label("Context limit, tokens").fill("64")
    page.get_by_role("button", name="Make statistics").click()
    plots = page.locator("#data-view-statistics .st-dv-plot")
    expect(page.locator("[data-plot=tokens][data-drawn]")).to_be_visible(timeout=120_000)
    page.wait_for_function("document.querySelectorAll('.st-dv-plot[data-drawn]').length >= 6")
    assert plots.count() >= 7
    drawn = page.evaluate("""() => { const p = document.querySelector('[data-plot=tokens] .st-plot');
        return { bars: p.data[0].y.reduce((a, b) => a + b, 0), limit: p.layout.shapes[0].x0 } }""")
    assert drawn == {"bars": 250, "limit": 64}
    expect(page.locator("[data-plot=tokens]")).to_contain_text("are longer than 64 tokens")
    expect(page.locator("[data-plot=duplicates]")).to_contain_text("10 rows (4 %) repeat another row exactly")
    light = page.evaluate("document.querySelector('[data-plot=tag-site] .st-plot').data[0].marker.color")
    page.locator(".st-theme").click()
    page.wait_for_function("(c) => document.querySelector('[data-plot=tag-site] .st-plot').data[0].marker.color !== c", arg=light)
    page.locator("[data-plot=tag-site] summary").click()
    page.locator("[data-plot=tag-site]").get_by_role("button", name="south").click()
    expect(page.locator("#data-tab-rows")).to_have_attribute("aria-selected", "true")
    expect(page.locator("[data-filter='tag:site']")).to_contain_text("south")
    page.locator("#data-tab-statistics").click()
    bar = page.locator("[data-plot=labels] .bars .point").first
    bar.scroll_into_view_if_needed()
    box = bar.bounding_box()  # plotly listens above its bars, so the mouse goes where the bar is
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.up()
    found(page, "166 of 250 rows")
    expect(page.locator("[data-filter=label]")).to_contain_text("good")


@pytest.mark.timeout(300)
def test_the_doctor_finds_and_mends(home, server, open_page):
    rows = list(chats(60))
    ref = make(home, "ill", [*rows, rows[3], rows[4], rows[3]])
    page = opened(open_page, ref, "doctor")
    page.get_by_role("button", name="Check this dataset").click()
    finding = page.locator("#data-view-doctor .st-dv-finding", has_text="exact").or_(
        page.locator("#data-view-doctor [data-code*=duplicate]")).first
    expect(finding).to_be_visible(timeout=120_000)
    expect(finding.locator(".st-dv-amount b")).to_have_text("3")
    if not finding.locator(".st-dv-examples").get_attribute("open"):
        finding.locator("summary").click()
    finding.locator("[data-pos]").first.click()  # an example leads to its row
    expect(page.get_by_role("complementary", name="Open row")).to_contain_text("Question")
    page.locator("#data-tab-doctor").click()
    code = finding.get_attribute("data-code")
    finding.locator("[data-fix]").click()
    page.wait_for_function("(ref) => studio.data.open && studio.data.open.ref !== ref", arg=ref)
    page.get_by_role("button", name="Check this dataset").click()
    expect(page.locator("#data-view-doctor .st-dv-report")).to_be_visible(timeout=120_000)
    expect(page.locator(f"#data-view-doctor [data-code={code}]")).to_have_count(0)
    from studio import api

    assert api.data_list()[0]["total"] == 60


@pytest.mark.timeout(180)
def test_what_rows_hold_is_only_text(home, server, open_page):
    evil = "<img src=x onerror='window.hacked=1'><script>window.hacked=1</script>"
    rows = [{"messages": [{"role": "user", "content": f"{evil} {i}"}, {"role": "assistant", "content": evil}]} for i in
            range(5)]
    page = opened(open_page, make(home, evil[:20].replace("<", "").replace("/", ""), rows))
    page.get_by_role("searchbox", name="Search in all texts").fill("<img")
    found(page, "5 of 5 rows")
    rows_of(page).first.click()
    side = page.get_by_role("complementary", name="Open row")
    expect(side).to_contain_text("<img src=x")
    side.get_by_role("tab", name="JSON").click()
    expect(side.locator("pre")).to_contain_text("<script>")
    page.locator("#data-tab-review").click()
    expect(page.locator("#data-view-review .st-dv-card")).to_contain_text("<script>")
    assert page.evaluate("window.hacked") is None
    assert page.locator(".dt-main img").count() == 0


@pytest.mark.timeout(180)
def test_a_row_of_ten_million_characters(home, server, open_page):
    rows = [*chats(5), {"messages": [{"role": "user", "content": "Say it all"},
                                     {"role": "assistant", "content": "word " * 2_000_000}]}]
    page = opened(open_page, make(home, "long", rows, held_out=2))
    found(page, "4 rows")
    rows_of(page).nth(3).click()
    side = page.get_by_role("complementary", name="Open row")
    expect(side.get_by_role("button", name="Show all 10,000,000 characters")).to_be_visible()
    expect(side.get_by_role("button", name="Edit")).to_have_count(0)
    expect(side).to_contain_text("too long to be edited here")
    page.get_by_role("radio", name="Validation").click()
    found(page, "2 rows")
    expect(side).to_be_hidden()  # the row that was open is of another split
    page.locator("#data-tab-review").click()
    expect(page.locator("#data-view-review .st-dv-card")).to_contain_text("Question 2:")
