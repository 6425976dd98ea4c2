"""From scores to reasons in the browser: leaderboard, a comparison with what got worse in red, errors in groups made a dataset, a report."""

from __future__ import annotations

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import expect  # noqa: E402

from studio.evals.results import Sample  # noqa: E402
from tests.evals.made import evaluated  # noqa: E402
from tests.evals.test_leaderboard import trained  # noqa: E402

WAIT = 180_000
EVIL = '<img src=x onerror="window.hit = 1"><script>window.hit = 1</script>'


@pytest.fixture
def world(home) -> dict[str, str]:
    """Two trainings that differ in one setting, and an evaluation where the second unlearned sums and both learned politeness."""
    runs, refs = zip(*[trained(name, learning_rate=rate) for name, rate in (("Gentle", 1e-4), ("Hasty", 1e-3))], strict=True)
    models = {"starter": "Starter", refs[0]: "Gentle", refs[1]: "Hasty"}

    def answers(task: str, right) -> dict[str, list[Sample]]:
        return {ref: [Sample(str(i), f"{EVIL if i == 0 else ''} {'Which planet is near the moon' if i % 2 else 'How hot must the bread oven be'}, {task} {i:02}?",
                             f"word {i}" if right(name, i) else "", f"word {i}", {"exact_match": float(right(name, i))}, {"level": "hard" if i % 2 else "easy"})
                      for i in range(40)] for ref, name in models.items()}

    tasks = {"polite": answers("polite", lambda name, i: i % 4 == 0 if name == "Starter" else i % 8 != 0),
             "sums": answers("sums", lambda name, i: i % 10 != 0 if name != "Hasty" else i % 2 == 0)}
    return {"eval": evaluated(models, tasks, name="All three"), "gentle": runs[0], "hasty": runs[1]}


@pytest.mark.timeout(900)
def test_why_one_model_is_better(world, server, open_page):
    page = open_page("?tab=eval&view=leaderboard")
    rows = page.locator(".is-board tbody tr")
    expect(rows).to_have_count(3, timeout=WAIT)
    assert rows.locator("th .st-link").all_inner_texts() == ["Gentle", "Hasty", "Starter"]
    expect(rows.nth(1)).to_contain_text("Starter →")
    expect(rows.nth(1)).to_contain_text("1 min 40 s")
    page.get_by_role("button", name="Sums").click()
    page.get_by_role("button", name="Sums").click()
    expect(rows.nth(0)).to_contain_text("Hasty")
    page.locator("[data-find]").first.fill("gent")
    expect(rows).to_have_count(1)
    page.locator("[data-find]").first.fill("")
    page.locator("[data-asked]").uncheck()

    # two of them side by side: what got worse for sure is red, and the answers behind it are one click away
    page.get_by_label("Choose Starter").check()
    page.get_by_label("Choose Hasty").check()
    page.locator(".is-bar [data-act=compare]").click()
    lines = page.locator(".is-pairs tbody tr")
    expect(lines).to_have_count(2, timeout=WAIT)
    if page.locator("[data-side=a]").evaluate("e => e.selectedOptions[0].textContent").startswith("Hasty"):
        page.locator("[data-act=swap]").click()
    sums = lines.filter(has_text="Sums")
    expect(sums).to_have_class("is-worse")
    expect(sums).to_contain_text("−40.0")
    assert "ev-worse" in sums.locator(".ev-change").get_attribute("class")
    expect(lines.filter(has_text="Polite")).to_have_class("is-better")
    expect(page.locator(".ev-verdict")).to_contain_text("Worse for sure Sums")
    sums.locator("[data-flips=worse]").click()
    expect(page.locator(".is-changed-answers .ev-row")).to_have_count(8)
    expect(page.locator(".is-changed-answers .ev-row").first).to_contain_text("sums 01?")
    page.locator("[data-flips=better]").first.click()
    expect(page.locator(".is-changed-answers")).to_contain_text("got better")
    assert "a=" in page.url and page.evaluate("window.hit") is None
    page.reload()
    expect(page.locator(".ev-verdict")).to_contain_text("Worse for sure Sums", timeout=WAIT)

    # what changed between the trainings
    page.goto(server.url + f"/?tab=eval&view=compare&mode=ablation&runs={world['gentle']},{world['hasty']}")
    table = page.locator(".is-ablation table").first
    expect(table.locator("tbody tr").nth(1)).to_contain_text("Learning rate", timeout=WAIT)
    expect(table.locator("td.is-changed")).to_have_text(["0.001"])
    expect(page.locator(".is-ablation table").nth(1)).to_contain_text("0.0001 → 0.001")


@pytest.mark.timeout(900)
def test_errors_become_a_dataset_and_all_a_report(world, open_page):
    page = open_page(f"?tab=eval&view=errors&run={world['eval']}")
    page.locator("[data-none] [data-new]").click()
    page.locator(".is-run", has_text="All three").locator("input").check()
    page.locator("dialog [type=submit]").click()
    groups = page.locator(".ev-special .is-group")
    expect(groups.first).to_be_visible(timeout=WAIT)
    expect(page.locator(".ev-special .is-summary")).to_contain_text("of 80 questions were failed")
    groups.filter(has_text="no answer").click()
    row = page.locator(".ev-special .ev-row").first
    expect(row).to_contain_text("onerror")
    assert page.evaluate("window.hit") is None
    page.locator(".ev-special [data-find]").fill("sums 05")
    expect(page.locator(".ev-special .ev-row")).to_have_count(1)
    page.locator(".ev-special [data-mend]").click()
    page.locator("dialog [name=name]").fill("Mend these")
    page.locator("dialog [type=submit]").click()
    expect(page.locator("dialog h2")).to_contain_text("Mend these", timeout=WAIT)
    page.locator("dialog [type=submit]").click()
    expect(page.locator("#tab-data-button")).to_have_attribute("aria-selected", "true")
    expect(page.get_by_text("Mend these").first).to_be_visible(timeout=WAIT)

    page.evaluate("studio.evalGo('errors')")
    expect(page.locator("#eval-view-errors .is-group").first).to_be_visible(timeout=WAIT)
    page.locator("#eval-view-errors [data-report]").click()
    expect(page.locator("dialog .is-run input:checked")).to_have_count(2)
    page.locator("dialog [name=title]").fill("Three models")
    page.locator("dialog [type=submit]").click()
    frame = page.frame_locator(".is-report iframe")
    expect(frame.locator("h1")).to_have_text("Three models", timeout=WAIT)
    for said in ("Hasty against Starter", "Errors of All three", "Learning rate (learning_rate)"):
        expect(frame.locator("main")).to_contain_text(said)
    expect(frame.locator("figure svg").first).to_be_visible()
    assert page.evaluate("window.hit") is None
    assert page.locator(".is-report iframe").get_attribute("sandbox") == ""
    with page.expect_download() as got:
        page.locator(".is-report a", has_text="report.pdf").click()
    assert got.value.path().read_bytes()[:5] == b"%PDF-"
    page.set_viewport_size({"width": 390, "height": 844})
    for view in ("leaderboard", "compare", "errors"):
        page.evaluate("view => studio.evalGo(view)", view)
        page.wait_for_timeout(700)
        place = page.locator(f"#eval-view-{view}")
        assert place.evaluate("e => e.scrollWidth <= e.clientWidth"), view
