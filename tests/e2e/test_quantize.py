"""Quantizing by clicks alone: three GGUFs and an NF4 of one model, their plot, a chat with each; the lesson; other programs."""

from __future__ import annotations

import json
import re

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import expect  # noqa: E402

LONG = 240_000  # milliseconds; two busy cores
_ENDED = """async ([run, limit]) => {
  for (const began = Date.now(); Date.now() - began < limit; await new Promise((done) => setTimeout(done, 400))) {
    const { state, reason } = await studio.call('run', { run });
    if (!['queued', 'starting', 'running'].includes(state)) return `${state} ${reason}`.trim();
  }
}"""
_POINTS = """(root) => document.querySelector(`${root} .qz-plot`)?.data?.find(({name}) => name === 'variants')?.text"""


def ended(page, run: str) -> str:
    """Final state of a run that is waited for, with the reason if there is one."""
    return page.evaluate(_ENDED, [run, LONG])


def submit(page, **values) -> str:
    return page.evaluate("(values) => studio.call('submit', {values})", {"kind": "quantize"} | values)["id"]


def answered(page, models: int) -> list[str]:
    """One question, and the answer of every column."""
    expect(page.locator("#tab-chat-button")).to_have_attribute("aria-selected", "true")
    columns = page.locator("#chat-view .ch-col")
    expect(columns).to_have_count(models, timeout=LONG)
    page.click("#chat-settings")
    page.fill("#chat-set-temperature", "0")
    page.click("#chat-settings")
    page.fill("#chat-prompt", "What is the opposite of hot?")
    page.press("#chat-prompt", "Enter")
    for n in range(models):
        expect(columns.nth(n).locator(".ch-status")).to_contain_text("tokens/s", timeout=LONG)
    expect(page.locator(".ch")).to_have_attribute("aria-busy", "false", timeout=LONG)
    return [columns.nth(n).get_by_test_id("bot").last.inner_text() for n in range(models)]


@pytest.mark.timeout(900)
def test_from_chips_to_a_chat_with_each_variant(page, server):
    page.locator("#tab-quantize-button").click()
    chips = page.locator("#quantize-types .qz-chip")
    expect(chips).to_have_count(8, timeout=LONG)  # the usual ones
    plan = page.locator("#quantize-panel .qz-plan tbody tr")
    expect(plan).to_have_count(3, timeout=LONG)  # the source, and the two that are chosen at first
    expect(plan.nth(1)).to_contain_text("Q8_0")
    assert plan.nth(2).locator(".qz-fits").all_inner_texts() == ["8", "16", "24"]

    # all types, in groups; what needs an importance matrix says so in place
    page.locator("#quantize-types [data-fold]").click()
    expect(chips).to_have_count(32)
    assert page.locator("#quantize-types h4").count() == 5
    small = chips.filter(has=page.get_by_text("IQ2_XXS", exact=True)).get_by_role("checkbox")
    small.focus()
    page.keyboard.press("Space")
    expect(page.locator("#quantize-types .qz-told")).to_contain_text("IQ2_XXS: noise without an importance matrix")
    expect(plan).to_have_count(4, timeout=LONG)
    page.keyboard.press("Space")
    expect(page.locator("#quantize-types .qz-told")).to_be_empty()
    chips.filter(has=page.get_by_text("Q2_K", exact=True)).click()
    expect(plan).to_have_count(4, timeout=LONG)
    expect(page.locator("#quantize-estimate .st-problems")).to_have_count(0, timeout=LONG)
    sizes = [text.strip() for text in plan.locator("th").all_inner_texts()]
    assert [re.split(r"\s", text)[0] for text in sizes] == ["Starter", "Q8_0", "Q4_K_M", "Q2_K"], "the largest first"

    # the run: a row a variant, with its proof
    page.click("#quantize-start")
    live = page.locator("#quantize-live")
    expect(live.locator(".qz-table tbody tr")).to_have_count(3, timeout=LONG)
    run = page.evaluate("studio.lives.quantize.run")
    nf4 = submit(page, method="bitsandbytes", types=["nf4"])
    lesson = submit(page, method="learn", bits=[8, 4, 2], granularities=["tensor"], num_calibration_samples=6, max_new_tokens=8)
    assert ended(page, run) == "succeeded"
    rows = live.locator(".qz-table tbody tr")
    expect(rows.locator(".qz-verdict")).to_have_count(3, timeout=LONG)
    expect(live.locator(".st-run-line")).to_contain_text("3 of 3 variants done")
    assert rows.nth(0).locator("th").inner_text() == "Q8_0" and "→" in rows.nth(0).inner_text()

    # the plot: other axes, a point shows its answers
    assert set(page.wait_for_function(_POINTS, arg="#quantize-live", timeout=LONG).json_value()) == {"Q8_0", "Q4_K_M", "Q2_K"}
    expect(live.locator(".qz-front")).to_contain_text("Q2_K")
    live.locator("[data-axis=y]").select_option("kl")
    page.wait_for_function("document.querySelector('#quantize-live .qz-plot').layout.yaxis.title.text === 'KL divergence'")
    kl = page.evaluate("Object.fromEntries(document.querySelector('#quantize-live .qz-plot').data.find((t) => t.name === 'variants').text"
                       ".map((name, i) => [name, document.querySelector('#quantize-live .qz-plot').data.find((t) => t.name === 'variants').y[i]]))")
    assert kl["Q8_0"] < kl["Q4_K_M"] < kl["Q2_K"], "fewer bits are further from the source"
    page.evaluate("studio.lives.quantize.quantizeView.choose('Q2_K')")
    expect(live.locator(".qz-proof [aria-selected=true]")).to_have_text("Q2_K")
    expect(live.locator(".qz-proof .qz-yes")).to_contain_text(["Chat template is the same", "same tokens"])

    # other programs
    rows.nth(1).get_by_role("button", name="Use it elsewhere").click()
    dialog = page.get_by_role("dialog", name="Use Starter Q4_K_M elsewhere")
    modelfile = dialog.locator(".qz-block").first.locator("pre")
    expect(modelfile).to_contain_text('TEMPLATE """{{- range .Messages }}<|im_start|>', timeout=LONG)
    assert str(server.home) in modelfile.inner_text() and 'PARAMETER stop "<|im_end|>"' in modelfile.inner_text()
    dialog.get_by_role("tab", name="Ollama").focus()
    page.keyboard.press("ArrowLeft")
    expect(dialog.locator("pre").first).to_contain_text("llama-cli -m ")
    dialog.get_by_role("tab", name="transformers").click()
    expect(dialog).to_contain_text("transformers cannot run this variant")
    dialog.get_by_role("button", name="Close").click()
    with page.expect_download() as download:
        rows.nth(2).get_by_role("button", name="Download").click()
    with open(download.value.path(), "rb") as file:
        assert download.value.suggested_filename == "Starter-Q2_K.gguf" and file.read(4) == b"GGUF"

    # a chat with the source and all three
    live.get_by_role("button", name="Chat with 3 beside the source").click()
    answers = answered(page, 4)
    assert all(answers) and ["cold" in answer for answer in answers[:2]] == [True, True], "the source, and Q8_0 like it"

    # the NF4 joins them beside the form
    assert ended(page, nf4) == "succeeded"
    page.locator("#tab-quantize-button").click()
    live.locator(".st-back").click()
    page.locator("#quantize-view-made").click()
    panel = page.locator("#quantize-panel")
    expect(panel.locator(".qz-list tbody tr")).to_have_count(4, timeout=LONG)
    made = page.wait_for_function(f"(root) => {{ const found = ({_POINTS})(root); return found?.length === 4 && found; }}", arg="#quantize-panel",
                                  timeout=LONG).json_value()
    assert len(set(made)) == 4 and sum("nf4" in name for name in made) == 1
    panel.locator(".qz-list tr").filter(has_text="bitsandbytes").get_by_role("checkbox").check()
    panel.get_by_role("button", name="Chat beside the source").click()
    assert all(answered(page, 2))

    # the lesson: a slider over what was measured
    assert ended(page, lesson) == "succeeded"
    page.locator("#tab-quantize-button").click()
    page.evaluate("(run) => studio.lives.quantize.show(run)", lesson)
    slider = live.get_by_role("slider", name="Bits")
    expect(slider).to_be_visible(timeout=LONG)
    learned = json.loads((server.home / "runs" / lesson / "output" / "learn.json").read_text())
    worst = next(r for r in learned["results"] if (r["scheme"], r["bits"]) == ("absmax", 2))
    expect(live.locator(".qz-learn output")).to_have_text("4 bits")
    slider.focus()
    page.keyboard.press("ArrowRight")
    expect(live.locator(".qz-learn output")).to_have_text("2 bits")
    expect(live.locator("[data-figure=perplexity] .qz-why")).to_contain_text("breaks the model")
    expect(live.locator("[data-figure=histogram] .qz-why")).to_contain_text("only 3 values are left")
    page.wait_for_function("(counts) => JSON.stringify(document.querySelector('[data-figure=histogram] .qz-chart').data?.[1].y) === counts",
                           arg=json.dumps(worst["layer"]["counts"], separators=(",", ":")), timeout=LONG)
    live.locator(".qz-learn").get_by_text("zero-point", exact=True).click()
    expect(live.locator("[data-figure=histogram] .qz-why")).to_contain_text("only 4 values are left")
