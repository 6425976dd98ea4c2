"""A benchmark of one's own in the browser: built from a dataset in the form, run on three models, its results and the report of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import expect  # noqa: E402

from studio import settings  # noqa: E402
from tests.e2e.test_eval import ENDED, LONG, param, pick  # noqa: E402

SUMS = [{"question": f"What is {a} plus {b}?", "answer": f"{a} plus {b} is {a + b}.", "level": "small" if a + b < 6 else "large"}
        for a in range(1, 6) for b in range(1, 5)]


def weaker(folder: Path, name: str) -> str:
    """The starter with one weight set to zero, so that models differ; the folder's reference."""
    shutil.copytree(settings.STARTER, folder)
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    head = int.from_bytes(data[:8], "little")
    start, end = json.loads(data[8:8 + head])[name]["data_offsets"]
    data[8 + head + start:8 + head + end] = bytes(end - start)
    path.write_bytes(data)
    return str(folder)


@pytest.mark.timeout(900)
def test_a_benchmark_from_a_dataset_to_the_report_of_three_models(server, open_page):
    home = server.home
    (home / "uploads" / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*SUMS, SUMS[0], {"question": "", "answer": "x"}]))
    others = [weaker(home / "models" / name, weight) for name, weight in (
        ("lame", "model.layers.1.mlp.down_proj.weight"), ("blank", "model.embed_tokens.weight"))]
    page = open_page("?tab=eval&view=benchmarks")
    expect(page.locator("#bench-list")).to_contain_text("No benchmark of your own yet")

    # the dataset is chosen, and the form is filled in by a first guess
    page.locator("#bench-new").click()
    form = page.locator("#bench-form")
    form.locator("[data-field=dataset] .ev-pick").click()
    page.locator(".ch-picker [role=option]", has_text="sums.jsonl").first.click()
    expect(form.locator(".be-question")).to_have_count(5)
    expect(form.locator("[data-field=metric] select")).to_have_value("rouge")
    expect(form.locator(".be-columns")).to_contain_text("level")

    # another metric, a template typed and clicked, and what is wrong is said where it is
    form.locator("[data-field=metric] select").select_option("number")
    form.locator("[data-field=prompt] textarea").fill("Please: ")
    form.locator(".be-chip[data-column=question]").click()
    expect(form.locator("[data-field=prompt] textarea")).to_have_value("Please: {{question}}")
    expect(form.locator(".be-question pre").first).to_contain_text("Please: What is 1 plus 1?")
    form.locator("[data-field=target] input").fill("{{nothing}}")
    expect(form.locator("[data-field=target] .st-error")).to_contain_text("question, answer, level")
    form.locator("[data-do=save]").click()
    expect(form.locator("[data-field=title] .st-error").or_(form.locator("[data-field=target] .st-error")).first).to_be_visible()
    assert page.evaluate("studio.call('bench_start', {again: true})")["benchmarks"] == []
    form.locator("[data-field=target] input").fill("{{answer}}")
    expect(form.locator("[data-field=target] .st-error")).to_have_count(0)
    form.locator("[data-field=title] input").fill("Small sums")
    form.locator("[data-field=prompt] textarea").fill("{{question}}")
    form.locator("[data-field=max_gen_toks] input").fill("24")

    # the scoring is tried before anything is run
    form.locator("[data-do=tryAll]").click()
    scores = form.locator("#bench-scores tbody tr")
    expect(scores).to_have_count(10, timeout=LONG)
    expect(scores.nth(0)).to_contain_text("exact_match 1")
    expect(scores.nth(1)).to_contain_text("expected 2")
    form.locator(".be-own summary").click()
    form.locator("#bench-answer").fill("I would say 2")
    form.locator("[data-do=tryOwn]").click()
    expect(scores).to_have_count(1, timeout=LONG)
    expect(scores).to_contain_text("exact_match 1")

    # saved and run on three models
    form.locator("[data-do=saveRun]").click()
    dialog = page.locator("dialog.ev-dialog")
    expect(dialog.locator(".ev-chip")).to_contain_text("Small sums")
    pick(page, "Starter")
    for ref in others:
        dialog.locator("[data-more]").click()
        page.locator(".ch-picker input").fill(ref)
        page.keyboard.press("Enter")
    expect(dialog.locator(".ev-models li")).to_have_count(3)
    dialog.locator("[type=submit]").click()
    expect(page.locator(".ev-name h1")).to_be_visible(timeout=LONG)
    page.wait_for_function("studio.param('run')")
    run = param(page, "run")
    assert page.evaluate(ENDED, run) == "succeeded"

    # its results: every answer of every model, by id and tag
    expect(page.locator(".ev-table tbody .ev-value")).to_have_count(3, timeout=LONG)
    found = page.evaluate("(run) => studio.call('eval_results', {run})", run)
    values = {one["model"]: one for one in found["scores"] if one["task"] == "bench:small-sums" and one["metric"] == "exact_match"}
    assert len(found["models"]) == 3 and all(one["n"] == len(SUMS) for one in values.values())
    assert values[0]["value"] > 0.5 > values[2]["value"], "the starter knows small sums, a model without words none"
    answers = [json.loads(line) for line in (settings.home() / "runs" / run / "output" / "samples.jsonl").open()]
    assert {one["tags"]["level"] for one in answers} == {"small", "large"} and len({one["id"] for one in answers}) == len(SUMS)

    # the report of it
    page.locator("#eval-tab-leaderboard").click()
    page.locator("[data-choose]").first.check()
    page.locator(".is-bar [data-act=report]").click()
    page.locator("dialog [name=title]").fill("Small sums, three models")
    page.locator("dialog [type=submit]").click()
    page.wait_for_function("(run) => studio.param('run') && studio.param('run') !== run", arg=run)
    assert page.evaluate(ENDED, param(page, "run")) == "succeeded"
    report = page.frame_locator(".is-report iframe")
    expect(report.locator("body")).to_contain_text("Small sums, three models", timeout=LONG)
    expect(report.locator("body")).to_contain_text("Small sums")

    # the list: what was left out is told, the form opens again, and it goes only when asked
    page.locator("#eval-tab-benchmarks").click()
    item = page.locator(".be-item")
    expect(item).to_contain_text("20 questions")
    item.locator("[data-do=file]").click()
    expect(page.locator("dialog .st-code").last).to_contain_text("task: bench_small-sums")
    page.locator("dialog [data-cancel]").click()
    item.locator("[data-do=edit]").click()
    expect(form.locator("h1")).to_contain_text("Small sums")
    expect(form.locator("[data-field=metric] select")).to_have_value("number")
    form.locator("[data-field=limit] input").fill("7")
    form.locator("[data-do=save]").click()
    expect(item).to_contain_text("7 questions")
    page.reload()
    expect(item).to_contain_text("7 questions")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    item.locator("[data-do=remove]").click()
    page.locator("dialog [type=submit]").click()
    expect(page.locator("#bench-list")).to_contain_text("No benchmark of your own yet")
    assert not list((home / "benchmarks").glob("*")), "nothing stays behind"
