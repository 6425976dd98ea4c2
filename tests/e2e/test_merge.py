"""Merging by clicks alone: two tunes along a curve that is drawn, three side by side in the chat, and the family tree."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import expect  # noqa: E402

LONG = 180_000  # milliseconds; two busy cores
TUNE = {"kind": "sft", "method": "full", "max_steps": 2, "logging_steps": 1, "eval_share": 0.0, "sample_prompts": [],
        "max_length": 64, "learning_rate": 1e-3}
TUNES = {"Sums": "shipped:sums", "Polite": "shipped:polite"}
ENDED = """async (runs) => {
  for (;;) {
    const found = await Promise.all(runs.map((run) => studio.call('run', {run})));
    if (found.every(({state}) => ['succeeded', 'failed', 'stopped', 'lost'].includes(state))) return found.map(({state}) => state);
    await new Promise((done) => setTimeout(done, 300));
  }
}"""


def tuned(page) -> None:
    """Two short fine-tunings of the starter, in the library under their names."""
    runs = [page.evaluate("(values) => studio.call('submit', {values}).then((run) => run.id)", TUNE | {"name": name, "dataset": data})
            for name, data in TUNES.items()]
    assert page.evaluate(ENDED, runs) == ["succeeded"] * len(runs)


def choose(page, method: str) -> None:
    page.locator("#merge-config .mg-way").filter(has=page.get_by_text(method, exact=True)).locator("label").click()


def add(page, name: str) -> None:
    page.locator("#merge-config [data-add]").click()
    page.locator(".ch-picker [role=option]").filter(has=page.locator("b", has_text=re.compile(f"^{name}$"))).click()


def config(page, what: str = "") -> object:
    return page.evaluate(f"studio.forms.merge.values.config{what}")


@pytest.mark.timeout(600)
def test_slerp_along_a_curve_then_chat_and_family(page):
    page.wait_for_function("Boolean(window.studio?.bus)")
    tuned(page)
    page.locator("#tab-merge-button").click()
    choose(page, "SLERP")
    add(page, "Sums")
    add(page, "Polite")
    expect(page.locator("#merge-config .mg-model")).to_have_count(2)
    expect(page.locator("#merge-config .mg-model").first).to_contain_text("Base")

    # a curve: a shape, a line of its own for attention swept with the pointer, a point moved with the keys
    slot = page.locator("#merge-config [data-at='parameters.t']")
    slot.locator(".mg-curve-button").click()
    slot.locator("[data-shape=rise]").click()
    slot.locator("[data-filter=self_attn]").click()
    drawing = slot.locator("svg.mg-curve")
    drawing.scroll_into_view_if_needed()
    box = drawing.bounding_box()
    page.mouse.move(box["x"] + 40, box["y"] + 20)
    page.mouse.down()
    for step in range(1, 13):
        page.mouse.move(box["x"] + 40 + step * (box["width"] - 60) / 12, box["y"] + 20 + step * 9)
    page.mouse.up()
    point = slot.get_by_role("slider", name="Point 3 of 5, Attention")
    point.press("Home")
    point.press("PageUp")
    expect(point).to_have_attribute("aria-valuenow", "0.1")
    page.wait_for_function("studio.forms.merge.values.config.parameters?.t?.[0]?.value?.[2] === 0.1")
    attention, rest = config(page, ".parameters.t")
    assert (attention["filter"], len(attention["value"])) == ("self_attn", 5) and "filter" not in rest
    assert rest["value"] == [0, 0.25, 0.5, 0.75, 1]
    swept = attention["value"]
    assert swept[0] > 0.8 and swept[0] > swept[1] > swept[3] > swept[4], "the line follows the pointer"

    # what is said beside the form, and where
    fit = page.locator("#merge-panel [data-panel=fit]")
    expect(fit.locator(".mg-facts tbody tr").first).to_contain_text("LlamaForCausalLM", timeout=LONG)
    expect(fit.locator(".mg-verdict")).to_contain_text("can be merged")
    page.locator("#merge-view-tensors").click()
    expect(page.locator("#merge-panel .mg-counts")).to_contain_text("38 merged")
    page.locator("#merge-view-apart").click()
    page.locator("#merge-panel [data-look]").click()
    expect(page.locator("#merge-panel [data-heat=similarity] .plot-container")).to_be_visible(timeout=LONG)
    expect(page.locator("#merge-panel .mg-means").first).to_contain_text("Sums")

    page.locator("#merge-name input").fill("Both")
    page.keyboard.press("Tab")
    page.wait_for_function("studio.forms.merge.values.name === 'Both' && !Object.keys(studio.forms.merge.errors).length")
    page.locator("#merge-start").click()
    live = page.locator("#merge-live")
    expect(live.locator(".st-run-line .st-pill")).to_have_text("Done", timeout=LONG)
    expect(live.locator(".st-made")).to_contain_text("Both")

    # the family, then the chat of three
    live.get_by_role("button", name="Family tree").click()
    tree = page.locator("#library-items .fm")
    expect(tree.locator(".fm-card h3")).to_have_text("Both", timeout=LONG)
    expect(tree.locator(".fm-card ul").first).to_contain_text("Sums")
    expect(tree.locator(".fm-card ul").first).to_contain_text("Polite")
    drawn = page.wait_for_function("""() => {
      const plot = document.querySelector('#library-items .fm-plot'), points = {};
      for (const trace of plot?.data || []) (trace.customdata || []).forEach((ref, i) => (points[trace.text[i]] = [trace.x[i], trace.name]));
      return points.Both && points; }""").json_value()
    assert drawn["Both"] == [2, "Merge"] and drawn["Sums"] == [1, "Trained model"] == drawn["Polite"]
    assert drawn["Starter"][0] == 0
    tree.locator(".fm-list summary").click()
    tree.locator(".fm-list [data-node]").filter(has_text="Sums").click()
    expect(tree.locator(".fm-card h3")).to_have_text("Sums")
    page.locator("#tab-merge-button").click()
    live.get_by_role("button", name="Chat side by side").click()
    expect(page.locator("#tab-chat-button")).to_have_attribute("aria-selected", "true")
    columns = page.locator("#chat-view .ch-col")
    expect(columns).to_have_count(3, timeout=LONG)
    expect(columns.nth(2)).to_contain_text("Both")


@pytest.mark.timeout(300)
def test_slices_yaml_and_what_is_wrong_is_said_where_it_is(open_page):
    page = open_page()
    page.wait_for_function("Boolean(window.studio?.bus)")
    page.locator("#tab-merge-button").click()
    page.locator("#merge-config [data-do=import]").click()
    page.locator("dialog textarea").fill("merge_method: passthrough\nslices:\n- sources:\n  - model: starter\n    layer_range: [0, 3]\n"
                                         "- sources:\n  - model: starter\n    layer_range: [1, 4]\n    parameters: {scael: 1}\n")
    page.locator("dialog [type=submit]").click()
    editor = page.locator("#merge-config")
    expect(editor.locator(".mg-slice")).to_have_count(2)
    expect(editor.locator(".mg-result small")).to_have_text("The result: 6 layers")
    told = editor.locator(".mg-slice").nth(1).locator(".mg-problem")
    expect(told).to_contain_text("Did you mean 'scale'?")
    editor.locator("[data-odd]").click()
    expect(told).to_have_count(0)

    # an edge with the keys, the other with the pointer, a number typed
    editor.get_by_role("slider", name="Last layer of slice 1").press("ArrowLeft")
    page.wait_for_function("studio.forms.merge.values.config.slices[0].sources[0].layer_range[1] === 2")
    track, edge = editor.locator(".mg-track").first, editor.get_by_role("slider", name="Last layer of slice 1")
    edge.scroll_into_view_if_needed()
    box, at = track.bounding_box(), edge.bounding_box()
    page.mouse.move(at["x"] + 5, at["y"] + 10)
    page.mouse.down()
    page.mouse.move(at["x"] + 5 + box["width"] / 2, at["y"] + 10, steps=6)
    page.mouse.up()
    page.wait_for_function("studio.forms.merge.values.config.slices[0].sources[0].layer_range[1] === 4")
    editor.get_by_label("First layer of slice 2").and_(editor.locator("input")).fill("2")
    page.keyboard.press("Tab")
    page.wait_for_function("String(studio.forms.merge.values.config.slices[1].sources[0].layer_range) === '2,4'")
    expect(editor.locator(".mg-result small")).to_have_text("The result: 6 layers")

    # the form and the YAML are one; mergekit's own file comes out
    page.locator("#merge-view-yaml").click()
    area = page.locator("#merge-yaml")
    expect(area).to_have_value(re.compile("merge_method: passthrough"))
    text = area.input_value()
    area.fill(text.replace("- 0\n", "- 1\n", 1))
    page.locator("#merge-panel [data-apply]").click()
    expect(editor.locator(".mg-result small")).to_have_text("The result: 5 layers")
    with page.expect_download() as download:
        editor.locator("[data-do=export]").click()
    saved = download.value.path().read_text()
    assert "merge_method: passthrough" in saved and "starter" in saved and "kind:" not in saved

    # nothing is wider than a telephone
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.timeout(300)
def test_by_keys_alone_and_experts_as_rows(page):
    page.wait_for_function("Boolean(window.studio?.bus)")
    page.locator("#tab-merge-button").click()
    editor = page.locator("#merge-config")
    choose(page, "SLERP")
    page.wait_for_function("studio.forms.merge.values.config.merge_method === 'slerp'")
    editor.locator("[data-do=methods]").press("Enter")
    editor.get_by_role("radio", name=re.compile("^SLERP")).press("ArrowDown")
    editor.get_by_role("radio", name=re.compile("^Linear A ")).press("ArrowDown")
    page.wait_for_function("studio.forms.merge.values.config.merge_method === 'nuslerp'")
    expect(editor.get_by_role("radio", name=re.compile("^NuSLERP"))).to_be_focused()
    editor.locator("[data-add]").press("Enter")
    page.keyboard.press("Enter")  # the first of the list
    expect(editor.locator(".mg-model")).to_have_count(1)
    expect(editor.locator("[data-add]")).to_be_focused()

    page.get_by_role("radio", name="Models as experts of one").check(force=True)
    experts = page.locator("#merge-experts")
    for _ in range(2):
        experts.locator("[data-add]").click()
        page.locator(".ch-picker [role=option]").first.click()
    asked = experts.locator("[data-line=positive_prompts]")
    expect(asked).to_have_count(2)
    for place, text in enumerate(("What is 2 plus 3?", "Tell me a story.")):
        asked.nth(place).fill(text)
        page.keyboard.press("Tab")
    page.wait_for_function("studio.forms.merge.values.positive_prompts?.length === 2")
    experts.locator("[data-act=down]").first.click()
    page.wait_for_function("String(studio.forms.merge.values.positive_prompts) === 'Tell me a story.,What is 2 plus 3?'")
    expect(asked.first).to_have_value("Tell me a story.")
    page.locator("#merge-view-yaml").click()
    expect(page.locator("#merge-yaml")).to_have_value(re.compile(r"experts:\n- starter\n- starter\n"))
    expect(page.locator("#merge-view-tensors")).to_be_hidden()
