"""The Dataset tab in a real browser: from a file to a training, pipelines changed, jobs stopped and resumed, refusals."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import expect  # noqa: E402

from tests.llm_stand_in import Reply, StandIn  # noqa: E402


def call(page, name: str, **values):
    return page.evaluate("([name, values]) => studio.call(name, values)", [name, values])


def sums(count: int = 60) -> str:
    """Questions and answers; each third is there twice, every tenth has no answer."""
    rows = [{"question": f"What is {n} plus {n + 1}?", "answer": "" if n % 10 == 9 else f"It is {2 * n + 1}."} for n in range(count)]
    rows += rows[::3]
    return "".join(json.dumps(row) + "\n" for row in rows)


def open_tab(open_page, path: str = "", **window):
    page = open_page(f"?tab=data{path}", **window)
    page.wait_for_function("Boolean(window.studio?.data?.state.steps.length)")
    return page


def bring_in(page, files) -> None:
    page.locator("#data-bring").click()
    page.locator("#data-files").set_input_files(files)


def steps(page):
    return page.locator("#data-strip .dt-step")


def add_step(page, name: str, **values) -> None:
    """Choose a step from the menu, fill its form, run it."""
    page.locator("#data-add-step").click()
    page.locator(f".dt-menu [data-step={name}]").click()
    for field, value in values.items():
        fill(page, field, value)
    page.locator("dialog.dt-dialog [type=submit]").click()


def fill(page, name: str, value) -> None:
    box = page.locator(f'dialog.dt-dialog [data-field="{name}"]')
    fold = box.locator("xpath=ancestor::details")
    if fold.count() and fold.first.get_attribute("open") is None:
        fold.first.locator("summary").click()
    control = box.locator("input, textarea, select").first
    if isinstance(value, bool):
        control.set_checked(value)
    elif control.evaluate("(e) => e.tagName") == "SELECT":
        control.select_option(value)
    else:
        control.fill(str(value))


def made(page, count: int) -> dict:
    """Wait until the open version has so many steps; what it is."""
    expect(steps(page)).to_have_count(count, timeout=120_000)
    expect(page.locator("#data-job")).to_be_hidden()
    return call(page, "data_open", ref=page.evaluate("studio.data.open.ref"))


def brought(server, open_page, text: str = "", name: str = "sums.jsonl"):
    """A page on which a file was brought in through the api."""
    (server.home / name).write_text(text or sums(), "utf-8")
    page = open_tab(open_page)
    page.evaluate("(values) => studio.data.submit(values)", {"kind": "data", "method": "import", "sources": [name]})
    made(page, 1)
    return page


@pytest.mark.timeout(600)
def test_from_a_file_to_a_training(server, open_page, tmp_path):
    """Upload, detect, doctor, fix, split, fine-tune."""
    file = tmp_path / "sums.jsonl"
    file.write_text(sums(), "utf-8")
    page = open_tab(open_page)
    expect(page.locator(".dt-first")).to_contain_text("No datasets yet")
    page.locator(".dt-first [data-go=bring]").click()
    page.locator("#data-files").set_input_files(file)
    card = page.locator(".dt-source")
    expect(card.locator(".dt-format")).to_have_text("Prompts and completions")
    expect(card.locator(".dt-evidence")).to_contain_text("'question' is the question and 'answer' the answer")
    expect(card).to_contain_text("80 rows")
    page.locator("#data-bring-start").click()
    first = made(page, 1)
    assert first["total"] + first["dropped"] == 80

    page.locator("#data-tab-doctor").click()
    page.locator("#data-view-doctor [data-report=run]").click()
    expect(page.locator("#data-view-doctor")).to_contain_text("duplicate", timeout=120_000, ignore_case=True)
    report = call(page, "data_report", ref=first["ref"], method="doctor")
    fixable = next(f for f in report["findings"] if f["fix"] and "duplicate" in f["code"])
    page.evaluate("(values) => { studio.data.shared().startStep(values) }", {**fixable["fix"], "dataset": first["ref"]})
    page.locator("dialog.dt-dialog [type=submit]").click()
    fixed = made(page, 2)
    assert fixed["total"] < first["total"]

    add_step(page, "split", validation="0.2")
    parted = made(page, 3)
    assert parted["rows"]["train"] + parted["rows"]["validation"] == fixed["total"]

    page.locator("[data-do=train]").click()
    expect(page.locator("#tab-finetune-button")).to_have_attribute("aria-selected", "true")
    page.wait_for_function("(ref) => window.studio.forms.finetune?.values.dataset === ref", arg=parted["ref"])
    values = page.evaluate("studio.forms.finetune.values") | {"max_steps": 2, "eval_share": 0.0}
    run = page.evaluate("(values) => studio.call('submit', {values})", values)["id"]
    page.evaluate("(run) => studio.openRun(run)", run)
    expect(page.locator("#runs-live .st-pill").first).to_have_text("Done", timeout=300_000)


@pytest.mark.timeout(180)
def test_several_sources_and_columns_put_right(server, open_page, tmp_path):
    good, odd = tmp_path / "a.csv", tmp_path / "b.csv"
    for path in (good, odd):
        path.write_text("temperature,city\n" + "".join(f"{path.stem} {n},Town {n}\n" for n in range(20)), "utf-8")
    page = open_tab(open_page)
    bring_in(page, [good, odd])
    expect(page.locator(".dt-unknown")).to_have_count(2)
    expect(page.locator("#data-bring-start")).to_be_disabled()
    page.locator(".dt-source").first.locator("[data-role=prompt]").select_option("city")
    expect(page.locator(".dt-source").first).to_contain_text("A role is missing")
    page.locator(".dt-source").first.locator("[data-role=completion]").select_option("temperature")
    expect(page.locator(".dt-format")).to_have_count(2)
    page.locator("#data-bring-start").click()
    found = made(page, 1)
    assert found["total"] == 40 and set(found["sources"]) == {"a.csv", "b.csv"}


@pytest.mark.timeout(240)
def test_a_step_is_changed_and_what_follows_runs_again(server, open_page):
    page = brought(server, open_page)
    add_step(page, "filter", min_chars=26)
    made(page, 2)
    add_step(page, "dedup")
    before = made(page, 3)
    card = steps(page).nth(1)
    expect(card.locator(".dt-why")).to_contain_text("short", ignore_case=True)

    card.locator("[data-act=dropped]").click()
    expect(page.locator(".dt-at")).to_contain_text("stage 2 of 3")
    expect(page.locator("#data-view-rows")).to_contain_text("What is 0 plus 1?")
    page.locator(".dt-at button").click()
    expect(page.locator(".dt-at")).to_be_hidden()

    card.locator("[data-act=edit]").click()
    expect(page.locator('dialog.dt-dialog [data-field="min_chars"] input')).to_have_value("26")
    fill(page, "min_chars", 28)
    expect(page.locator("dialog.dt-dialog [type=submit]")).to_have_text("Run 2 steps again")
    page.locator("dialog.dt-dialog [type=submit]").click()
    page.wait_for_function("(ref) => studio.data.open.ref !== ref && studio.data.open.pipeline.length === 3", arg=before["ref"], timeout=120_000)
    after = made(page, 3)
    assert after["pipeline"][1]["step"]["min_chars"] == 28 and after["total"] < before["total"]
    assert after["pipeline"][0]["ref"] == before["pipeline"][0]["ref"], "the step before is used as it is"
    again = call(page, "data_open", ref=before["ref"])
    assert again["hash"] == before["hash"], "the old version stays"

    page.locator("#data-tab-versions").click()
    page.locator(".dt-diff [data-side=a]").select_option(before["ref"])
    expect(page.locator(".dt-diff-removed b")).to_have_text(str(before["total"] - after["total"]))
    expect(page.locator(".dt-diff-steps")).to_contain_text("min_chars = 26")
    expect(page.locator(".dt-diff-row.dt-kind-removed").first).to_be_visible()

    steps(page).nth(2).hover()
    steps(page).nth(2).locator("[data-act=remove]").click()
    page.locator("dialog.st-dialog [type=submit]").click()
    expect(steps(page)).to_have_count(2)


@pytest.mark.timeout(300)
def test_a_generation_is_stopped_reloaded_and_resumed(server, open_page):
    with StandIn(lambda asked: Reply(f"{asked.words(14).capitalize()}.", delay=0.4)) as model:
        page = open_tab(open_page)
        page.locator("#data-make").click()
        page.locator(".dt-make [data-step=idea]").click()
        page.locator("dialog.dt-dialog [type=submit]").click()
        expect(page.locator('dialog.dt-dialog [data-field="task"] .st-error')).to_contain_text("not described")
        for name, value in {"task": "Names of things.", "generator": model.address, "topics": "bees\nships", "system_prompt": "Be brief.",
                            "count": 40, "near_duplicates": 0, "concurrency": 2}.items():
            fill(page, name, value)
        page.locator("dialog.dt-dialog [type=submit]").click()
        page.wait_for_function("studio.data.job.progress?.done >= 4", timeout=120_000)
        page.reload()
        expect(page.locator("#data-job")).to_contain_text("of 40", timeout=60_000)
        page.locator("[data-job=stop]").click()
        expect(page.locator("[data-job=resume]")).to_be_visible(timeout=60_000)
        assert len(model.requests) < 80, "it was stopped on its way"
        page.reload()
        expect(page.locator("[data-job=resume]")).to_be_visible(timeout=60_000)
        page.locator("[data-job=resume]").click()
        found = made(page, 1)
        rows = call(page, "data_rows", ref=found["ref"], query={}, limit=200)["rows"]
        assert found["total"] == len({row["id"] for row in rows}) == 40
        assert len(model.requests) <= 80 + 4, "what was answered before the stop was not asked again"


@pytest.mark.timeout(180)
def test_a_refusal_stands_at_its_field_and_starts_nothing(server, open_page):
    page = brought(server, open_page)
    runs = len(call(page, "data_jobs"))
    page.locator("#data-add-step").click()
    page.locator(".dt-menu-find input").fill("filter")
    expect(page.locator(".dt-menu [data-step=filter]")).to_be_visible()
    page.keyboard.press("Enter")
    fill(page, "min_chars", "many")
    page.locator("dialog.dt-dialog [type=submit]").click()
    field = page.locator('dialog.dt-dialog [data-field="min_chars"]')
    expect(field.locator(".st-error")).to_contain_text("whole number")
    expect(field.locator("input")).to_have_attribute("aria-invalid", "true")
    expect(field.locator("input")).to_be_focused()
    fill(page, "min_chars", "0")
    fill(page, "drop_pattern", "(")
    page.locator("dialog.dt-dialog [type=submit]").click()
    expect(page.locator('dialog.dt-dialog [data-field="drop_pattern"] .st-error')).to_be_visible()
    assert len(call(page, "data_jobs")) == runs
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_have_count(0)


@pytest.mark.timeout(180)
def test_a_job_that_fails_says_why_and_can_be_changed(server, open_page):
    page = brought(server, open_page)
    add_step(page, "filter", min_chars=5000)
    expect(page.locator("#data-job")).to_contain_text("No row is left", timeout=60_000)
    page.locator("[data-job=change]").click()
    expect(page.locator("dialog.dt-dialog")).to_contain_text("No row is left")
    fill(page, "min_chars", 26)
    page.locator("dialog.dt-dialog [type=submit]").click()
    made(page, 2)


@pytest.mark.timeout(180)
def test_a_reload_keeps_the_place(server, open_page):
    page = brought(server, open_page)
    add_step(page, "dedup")
    found = made(page, 2)
    page.locator("#data-tab-versions").click()
    expect(page.locator(".dt-diff-removed b")).not_to_have_text("0")
    page.reload()
    expect(page.locator("#data-tab-versions")).to_have_attribute("aria-selected", "true")
    expect(page.locator("h1", has_text=found["name"])).to_be_visible()
    assert page.evaluate("studio.data.open.ref") == found["ref"]
    page.locator("#data-bring").click()
    page.reload()
    expect(page.locator("#data-page-bring")).to_be_visible()


@pytest.mark.timeout(180)
def test_pipelines_are_saved_and_run_on_other_rows(server, open_page):
    page = brought(server, open_page)
    add_step(page, "dedup")
    made(page, 2)
    (server.home / "more.jsonl").write_text(sums(30), "utf-8")
    page.locator("[data-do=menu]").click()
    page.locator(".dt-pop [data-do=yaml]").click()
    expect(page.locator("dialog pre")).to_contain_text("method: dedup")
    page.keyboard.press("Escape")
    page.locator("[data-do=menu]").click()
    page.locator(".dt-pop [data-do=save]").click()
    page.locator("dialog [name=name]").fill("tidy")
    page.locator("dialog [type=submit]").click()
    expect(page.locator(".st-toast", has_text="Saved: tidy")).to_be_visible()
    page.locator("[data-do=menu]").click()
    page.locator(".dt-pop [data-do=run_on]").click()
    page.locator("dialog [name=dataset]").fill("more.jsonl")
    page.locator("dialog [type=submit]").click()
    page.wait_for_function("studio.data.open.name.startsWith('more') && studio.data.open.pipeline.length === 2", timeout=120_000)
    assert list(made(page, 2)["sources"]) == ["more.jsonl"]
    page.locator("#data-add-step").click()
    expect(page.locator(".dt-menu")).to_contain_text("Clean chats")
    page.locator(".dt-menu [data-list=saved]").click()
    expect(page.locator("dialog .dt-told")).to_contain_text("Deduplicate")
    page.locator("dialog [type=submit]").click()
    assert made(page, 3)["pipeline"][2]["dropped"] == 0, "nothing is left to drop the second time"


@pytest.mark.timeout(180)
def test_a_dataset_is_exported_and_downloaded(server, open_page, tmp_path):
    page = brought(server, open_page)
    total = page.evaluate("studio.data.open.total")
    page.locator("[data-do=download]").click()
    page.locator("dialog [name=format]").select_option("messages")
    with page.expect_download(timeout=120_000) as waiting:
        page.locator("dialog [type=submit]").click()
    saved = tmp_path / "saved.jsonl"
    waiting.value.save_as(saved)
    assert waiting.value.suggested_filename == "sums.jsonl"
    rows = [json.loads(line) for line in saved.read_text("utf-8").splitlines()]
    assert len(rows) == total and set(rows[0]["messages"][0]) >= {"role", "content"}


@pytest.mark.timeout(120)
def test_versions_are_renamed_and_deleted(server, open_page):
    page = brought(server, open_page)
    page.locator("[data-do=menu]").click()
    page.locator(".dt-pop [data-do=rename]").click()
    page.locator("dialog [name=name]").fill("my sums")
    page.locator("dialog [type=submit]").click()
    expect(page.locator("#data-list .dt-item")).to_contain_text("my sums")
    page.locator("[data-do=menu]").click()
    page.locator(".dt-pop [data-do=about]").click()
    expect(page.locator("dialog")).to_contain_text("sums.jsonl")
    page.keyboard.press("Escape")
    page.locator("[data-do=menu]").click()
    page.locator(".dt-pop [data-do=delete]").click()
    page.locator("dialog [type=submit]").click()
    expect(page.locator(".dt-first")).to_be_visible()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_on_a_telephone(server, open_page, dark):
    page = open_tab(open_page, width=390, height=844, dark=dark)
    page.locator(".dt-first [data-go=shipped]").click()
    made(page, 1)
    for name in ("data", "library"):
        expect(page.locator(f"#tab-{name}-button")).to_be_visible()
    for view in ("rows", "review", "statistics", "doctor", "versions"):
        page.locator(f"#data-tab-{view}").click()
        assert page.evaluate("document.documentElement.scrollWidth") <= 391, view
    page.locator("#data-toggle").click()
    expect(page.locator("#data-list .dt-item")).to_be_in_viewport()
    page.locator("#data-bring").click()
    expect(page.locator("#data-rail")).to_be_hidden()
    expect(page.locator(".dt-drop")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 391


@pytest.mark.timeout(180)
def test_other_parts_of_the_page_open_datasets_here(server, open_page):
    page = brought(server, open_page)
    ref = page.evaluate("studio.data.open.ref")
    page.locator("#tab-library-button").click()
    page.locator(f'.st-item[data-ref="{ref}"] [data-act=data]').click()
    expect(page.locator("#tab-data-button")).to_have_attribute("aria-selected", "true")
    expect(page.locator(".dt-name h1")).to_have_text("sums")
    first = open_page("?tab=library")  # where the tab was never opened before
    first.locator(f'.st-item[data-ref="{ref}"] [data-act=data]').click()
    expect(first.locator(".dt-name h1")).to_have_text("sums")
    first.close()
    page.evaluate("studio.open('data', {values: {dataset: 'shipped:polite'}})")  # as the search of the Hub does
    expect(page.locator(".dt-source")).to_contain_text("Polite answers")
    page.locator("#tab-finetune-button").click()
    page.wait_for_function("Boolean(window.studio?.forms?.finetune)")
    page.locator("#finetune-dataset input").click()
    expect(page.get_by_role("option").filter(has_text="sums").first).to_be_visible()


@pytest.mark.timeout(120)
def test_files_are_dropped_anywhere_on_the_tab(server, open_page):
    page = open_tab(open_page)
    page.evaluate("""(text) => {
        const dataTransfer = new DataTransfer();
        for (const name of ["one.jsonl", "two.jsonl"]) dataTransfer.items.add(new File([name === "one.jsonl" ? text : text + text], name));
        document.querySelector(".dt-main").dispatchEvent(new DragEvent("drop", {dataTransfer, bubbles: true, cancelable: true}));
    }""", sums(10))
    expect(page.locator(".dt-format")).to_have_count(2)
    expect(page.locator("[data-sum]")).to_contain_text("42 rows")


@pytest.mark.timeout(120)
def test_a_file_that_is_no_data_is_refused_with_the_reason(server, open_page, tmp_path):
    page, broken = open_tab(open_page), tmp_path / "page.json"
    broken.write_text("<!doctype html><html></html>")
    bring_in(page, [broken])
    expect(page.locator(".dt-source.dt-is-bad")).to_contain_text("is a web page, not data")
    expect(page.locator("#data-bring-start")).to_be_disabled()
    page.locator("#data-address").fill("nowhere/at/all.jsonl")
    page.keyboard.press("Enter")
    expect(page.locator(".dt-source.dt-is-bad")).to_have_count(2)
    page.locator("#data-address").fill("someone/something")
    expect(page.locator("#data-subset")).to_be_visible()
    for card in (1, 0):
        page.locator(f".dt-source [data-drop='{card}']").click()
    expect(page.locator(".dt-source")).to_have_count(0)
