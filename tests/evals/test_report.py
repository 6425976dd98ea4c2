"""The report: one HTML file that asks nobody for anything, a PDF that reads back, a model card; whatever a prompt holds stays text."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from studio import api, settings
from studio.errors import StudioError
from studio.evals.reporting import markdown, pdf, reasons
from studio.evals.reporting.blocks import Answers, Code, Section, Table, Text
from studio.evals.results import Sample
from studio.jobs import store
from studio.recipe import parse
from studio.registry import method
from tests.e2e.conftest import CHROMIUM, FLAGS
from tests.evals.made import evaluated, finished

EVIL = '<script>fetch("http://evil.example/")</script><img src="http://evil.example/x.png" onerror="alert(1)">'
RUSSIAN = "Какого цвета трава? Она зелёная."


def training(name: str = "polite <b>lora</b>", **values) -> tuple[str, str]:
    """A training with curves, samples and a warning, without computing anything."""
    def work(recipe, ctx):
        for step in range(0, 60, 5):
            ctx.metric(step, {"loss": 3 - step / 30, **({"eval_loss": 3.1 - step / 40} if step % 10 == 0 else {})})
        ctx.sample(0, "Hello?", "Mumble", None)
        ctx.sample(50, "Hello?", "Hello, dear friend.", None)
        ctx.warning("short", "The answers are short.", "Add longer ones.")
        (ctx.output / "adapter_config.json").write_text("{}")
        ctx.artifact("adapter", ctx.output, name, {"method": "sft/lora", "parameters": 12345}, [(recipe.model, "base"), (recipe.dataset, "data")])
        return {"eval_loss": 1.85, "eval_loss_before": 3.1, "seconds": 42.0, "device": "cpu"}

    run, [made] = finished({"kind": "sft", "method": "lora", "model": "starter", "dataset": "shipped:polite"} | values, work)
    return run, made["ref"]


def scored(ref: str) -> str:
    made: dict[str, list[Sample]] = {"starter": [], ref: []}
    for i in range(40):
        prompt = {0: EVIL, 4: RUSSIAN, 2: "Price $5 | or $6 & _more_ `code` ```"}.get(i, f"Question {i}")
        for name, right in (("starter", i % 4 != 0), (ref, i % 8 != 0)):
            made[name].append(Sample(str(i), prompt, f"answer {i}" if right else EVIL, f"answer {i}", {"exact_match": float(right)},
                                     {"level": "hard" if i % 2 else "easy"}))
    return evaluated({"starter": "Starter", ref: "polite <b>lora</b>"}, {"facts": made}, name="Facts asked")


def reported(runs: list[str], **more) -> tuple[str, Path]:
    def work(recipe, ctx):
        method("eval", "report").check(recipe)
        return method("eval", "report").run(recipe, ctx)

    run, _ = finished({"kind": "eval", "method": "report", "runs": runs} | more, work)
    return run, settings.run_dir(run) / "output"


@pytest.fixture
def whole(home):
    run, ref = training(learning_rate=5e-4)
    evaluation = scored(ref)
    analysis, _ = finished({"kind": "eval", "method": "analyse", "runs": [evaluation]},
                           lambda recipe, ctx: method("eval", "analyse").run(recipe, ctx))
    report, folder = reported([evaluation, analysis], notes=f"For children.\n{EVIL}")
    return {"training": run, "ref": ref, "evaluation": evaluation, "report": report, "folder": folder}


def test_the_html_file_says_everything_and_asks_nobody(whole):
    text = (whole["folder"] / "report.html").read_text("utf-8")
    for said in ("Process and lineage", "Learning rate (learning_rate)", "0.0005", "Training and validation", "exact_match", "Facts asked",
                 "Differences", "95 % interval", "Answers that changed", "Errors", "Samples", "What the studio warned of", "The answers are short.",
                 RUSSIAN, "validation loss 3.1 before, 1.85 after", "Drawn by seed 0", "Polite answers", "set by hand"):
        assert said in text, said
    assert "<script" not in text and "<img" not in text and "&lt;script&gt;fetch(" in text and "polite &lt;b&gt;lora&lt;/b&gt;" in text
    assert not re.search(r"""(src|href|srcset|data|action|poster)\s*=\s*["']?\s*(https?:)?//""", text) and "@import" not in text
    assert not re.search(r"url\((?!#)", text) and text.count("<svg") >= 4
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids)), "two pictures share an id"
    for used in set(re.findall(r'(?:url\(#|xlink:href="#|href="#)([^")]+)', text)):
        assert used in ids, used


def test_the_html_file_in_a_browser_makes_no_request(whole):
    pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium here")
    with ThreadPoolExecutor(1) as apart:  # the browser tests of this process may have a browser of their own open
        apart.submit(opened_in_a_browser, whole).result()


def opened_in_a_browser(whole):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for dark in (False, True):
            page = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme="dark" if dark else "light")
            asked, said = [], []
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            page.on("console", lambda message, said=said: said.append(message.text))
            page.on("dialog", lambda dialog, said=said: (said.append(dialog.message), dialog.dismiss()))
            page.goto((whole["folder"] / "report.html").as_uri())
            page.wait_for_timeout(200)
            assert asked == [(whole["folder"] / "report.html").as_uri()] and said == []
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, "the page is wider than a telephone"
            assert page.locator("figure svg").first.bounding_box()["width"] > 200
            stroke = page.locator("figure svg path[style*='--s0']").first.evaluate("e => getComputedStyle(e).stroke + getComputedStyle(e).fill")
            assert ("135, 151, 251" if dark else "51, 70, 200") in stroke
        browser.close()


def test_the_pdf_reads_back(whole):
    from pypdf import PdfReader

    reader = PdfReader(whole["folder"] / "report.pdf")
    text = " ".join(" ".join(page.extract_text() for page in reader.pages).split())
    for said in ("Process and lineage", "exact_match", "Какого цвета трава? Она зелёная.", "polite <b>lora</b>", "<script>fetch(", "set by hand", "Learning rate"):
        assert said in text, said
    outline = [entry.title for entry in reader.outline if not isinstance(entry, list)]
    assert outline[:2] == ["In short", "Notes"] and "Differences" in outline
    assert sum(len(page.images) for page in reader.pages) >= 4 and reader.metadata.title == "polite <b>lora</b>"
    assert api.report(whole["report"])["pages"] == len(reader.pages)
    assert not any("/JavaScript" in page or "/AA" in page for page in reader.pages)


def test_the_model_card_has_its_front_matter_and_its_scores(whole):
    text = (whole["folder"] / "README.md").read_text("utf-8")
    front = yaml.safe_load(text.split("---")[1])
    assert front["library_name"] == "peft" and front["tags"] == ["atelier", "sft-lora"]
    [result] = front["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "exact_match", "name": "exact_match", "value": 0.875}] and result["dataset"]["type"] == "facts"
    body = text.split("---", 2)[2]
    assert "# polite \\<b\\>lora" in body and RUSSIAN in body
    outside = re.sub(r"(?ms)^(`{3,})text\n.*?^\1$", "", body)
    assert not re.search(r"(?<!\\)<\w", outside), "HTML outside of a fence"


def test_the_files_are_listed_and_belong_to_their_owner(whole, monkeypatch):
    found = api.report(whole["report"])
    assert [one["name"] for one in found["files"]] == ["report.html", "report.pdf", "README.md"] and found["title"] == "polite <b>lora</b>"
    with pytest.raises(StudioError, match="no report"):
        api.report(whole["evaluation"])
    monkeypatch.setenv("SPACE_ID", "a/b")
    with pytest.raises(StudioError, match="no run"):
        api.report(whole["report"], "ben")


def test_bad_news_stands_at_the_top(home):
    run, ref = training("worse")
    wrong = {"starter": [Sample(str(i), f"q{i}", "a", "a", {"exact_match": 1.0}) for i in range(30)],
             ref: [Sample(str(i), f"q{i}", "b", "a", {"exact_match": float(i < 5)}) for i in range(30)]}
    _, folder = reported([evaluated({"starter": "Starter", ref: "worse"}, {"facts": wrong})], formats=["html"])
    text = (folder / "report.html").read_text("utf-8")
    assert "worse is worse than Starter at Facts (exact_match −0.833" in text and not (folder / "report.pdf").exists()
    assert re.search(r'class="bad n">−0\.833', text)
    assert text.index("In short") < text.index("worse is worse than") < text.index('<h2 id="s1"')
    assert run in text, "the training behind the model is told of without being chosen"


def test_why_a_setting_was_chosen(home):
    preset = next(one for one in api.presets("sft") if one["values"].get("method") == "lora" and len(one["values"]) > 5)
    near, _ = training("by preset", **{key: value for key, value in preset["values"].items() if key not in ("kind", "method", "model", "dataset")})
    told = {one["name"]: one["why"] for one in reasons.changed(store.get(near))}
    assert told and set(told.values()) == {f"preset '{preset['title']}'"}
    sweep, _ = finished({"kind": "sweep", "method": "grid", "name": "rates", "recipe": {"kind": "sft", "method": "lora", "dataset": "shipped:polite"},
                         "space": [{"field": "learning_rate", "values": [1e-3, 3e-3]}]},
                        lambda recipe, ctx: {"best_params": {"learning_rate": 3e-3}, "best_value": 1.25, "metric": "eval_loss", "trials": [{}, {}]})
    after, _ = training("after the sweep", learning_rate=3e-3, r=20)
    told = {one["name"]: one["why"] for one in reasons.changed(store.get(after))}
    assert told == {"learning_rate": "best of 2 trials of 'rates' (eval_loss 1.25)", "r": "set by hand"} and sweep


def test_several_trainings_are_told_side_by_side(home):
    runs = [training(f"run {n}", learning_rate=rate)[0] for n, rate in enumerate((1e-4, 2e-4))]
    _, folder = reported(runs, title="Two rates", formats=["card", "html"])
    text = (folder / "report.html").read_text("utf-8")
    assert "Validation loss of all runs" in text and "What changed" in text and "<h1>Two rates</h1>" in text
    assert "| Learning rate | 0.0001 | 0.0002 |" in (folder / "README.md").read_text("utf-8")


def test_letters_that_no_font_has_are_told(tmp_path):
    told = pdf.write(tmp_path / "a.pdf", "Title \U00013080", ["x"], [Section("S", [Text("hieroglyph \U00013080 and 5 €"), Table(["a"], []),
                     Code("code", "x\ty"), Answers("p", "", [("m", "", None)])])], "f")
    assert told["missing"] == "\U00013080" and told["pages"] == 1


def test_markup_in_markdown_means_itself():
    assert markdown.text("a|b <i> *c* [d](http://e) `f` $g$ #h") == r"a\|b \<i\> \*c\* \[d\](http://e) \`f\` \$g\$ \#h"
    assert markdown.fenced("```\nx\n````") == ["`````text", "```\nx\n````", "`````"]


@pytest.mark.parametrize(("values", "field", "word"), [({"runs": []}, "runs", "No run"), ({"runs": ["rnothing00"]}, "runs", "no run"),
                                                      ({"runs": ["RUN"], "formats": []}, "formats", "No file"), ({"runs": ["OPEN"]}, "runs", "still goes on")])
def test_refused_before_the_start(values, field, word, home):
    run, _ = training()
    waiting = store.submit(parse({"kind": "sft", "method": "lora", "dataset": "shipped:polite"}))["id"]
    values = values | {"runs": [{"RUN": run, "OPEN": waiting}.get(one, one) for one in values["runs"]]}
    with pytest.raises(StudioError, match=word) as caught:
        method("eval", "report").check(parse({"kind": "eval", "method": "report"} | values))
    assert caught.value.field == field
