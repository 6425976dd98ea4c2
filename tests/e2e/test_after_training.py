"""What a person does once a run is over: compare it, merge it, push it, and install a part that another run asks for.

One studio and two short runs for all of it. The studio lives in a throw-away environment, so that installing is real;
its Hub is a stand-in on loopback, its package a wheel made here.
"""

from __future__ import annotations

import re

import pytest

from studio import settings
from studio.library import artifacts, bases
from tests.conftest import end_processes
from tests.e2e.conftest import Server
from tests.hub_stand_in import TOKEN, Hub
from tests.jobs.test_extra import Box, make_wheel

pytest.importorskip("playwright")
from playwright.sync_api import expect  # noqa: E402

SLOW = 240_000  # milliseconds for a job on a busy machine
RATES = {"slow": 1e-4, "quick": 1e-2}
_UNTIL = """async ([what, run, limit]) => {
  const look = {
    ended: async () => {
      const { state, reason } = await studio.call('run', { run });
      return ['succeeded', 'failed', 'stopped', 'lost'].includes(state) && `${state} ${reason}`.trim();
    },
    started: async () => (await studio.call('runs', {})).find(({ kind }) => kind === run)?.id,
  }[what];
  for (const began = Date.now(); Date.now() - began < limit; await new Promise((done) => setTimeout(done, 300))) {
    const found = await look();
    if (found) return found;
  }
}"""
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def hub():
    with Hub() as made:
        yield made


@pytest.fixture(scope="module")
def server(browser, hub: Hub, tmp_path_factory):
    """A studio in an environment of its own, logged in to the stand-in."""
    box = Box(tmp_path_factory.mktemp("box"))
    make_wheel(box.folder / "wheels", "trackio", version="0.43.1")
    home = tmp_path_factory.mktemp("home").resolve()
    environment = {name: box.env[name] for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS", "PIP_CONFIG_FILE")} | {
        "HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_CACHE": str(home / "cache"), "ATELIER_THREADS": "1"}
    made = Server(home, environment, str(box.folder / "venv/bin/python"))
    made.site = box.site
    try:
        made.start()
        yield made
    finally:
        made.stop()
        end_processes(home)


@pytest.fixture(scope="module")
def runs(browser, server: Server) -> dict[str, str]:
    """Two finished fine-tunings of three steps: name -> id."""
    page = browser.new_page()
    page.set_default_timeout(SLOW)
    page.goto(server.url)
    page.wait_for_function("Boolean(window.studio?.bus)")
    made = {}
    for name, rate in RATES.items():
        values = {"kind": "sft", "method": "lora", "dataset": "shipped:polite", "max_steps": 3, "logging_steps": 1,
                  "eval_share": 0.0, "sample_prompts": [], "max_length": 64, "name": name, "learning_rate": rate}
        made[name] = page.evaluate("(values) => studio.call('submit', {values})", values)["id"]
    for run in made.values():
        assert ended(page, run) == "succeeded"
    page.close()
    return made


def ended(page, run: str) -> str:
    """Final state, with the reason if there is one, of a run that is waited for."""
    return page.evaluate(_UNTIL, ["ended", run, SLOW])


def started(page, kind: str) -> str:
    """Id of the job of a kind that the page started just now."""
    return page.evaluate(_UNTIL, ["started", kind, SLOW])


def toast(page, text: str) -> None:
    """A passing message; others may stand beside it."""
    expect(page.locator(".st-toast").filter(has_text=text).first).to_be_visible(timeout=SLOW)


def in_library(page, name: str):
    """The card of a thing in the Library tab."""
    page.locator("#tab-library-button").click()
    exact = page.get_by_role("heading", name=name, exact=True)
    card = page.locator(".st-item").filter(has=exact)
    expect(card).to_have_count(1, timeout=SLOW)
    return card


def test_two_runs_are_compared_in_one_chart(page, runs):
    page.locator("#tab-runs-button").click()
    button = page.locator("[data-compare]")
    expect(button).to_be_disabled()
    for run in runs.values():
        page.locator(f"[data-pick='{run}']").check(timeout=SLOW)
    expect(button).to_have_text("Compare 2")
    button.click()
    plot = "document.querySelector('.st-compare [data-chart=loss] .st-plot')"
    page.wait_for_function(f"{plot}?.data?.length === 2", timeout=SLOW)
    drawn = page.evaluate(f"{plot}.data.map((trace) => [trace.name, [...trace.x], [...trace.y]])")
    assert {name: steps for name, steps, _ in drawn} == {"slow": [1, 2, 3], "quick": [1, 2, 3]}
    (_, _, one), (_, _, other) = drawn
    assert one[0] == pytest.approx(other[0]) and one[2] != other[2], "they begin alike and learn at different rates"
    table = page.locator(".st-compare table")
    assert table.locator("tbody th").all_inner_texts() == ["name", "learning_rate"]
    assert table.locator("tr").filter(has_text="learning_rate").locator("td").all_inner_texts() == ["0.0001", "0.01"]
    page.locator(".st-compare [data-close]").click()
    expect(page.locator(".st-compare")).to_be_hidden()


def test_an_adapter_is_merged_from_its_run_and_stands_in_the_library(open_page, server, runs):
    page = open_page(f"?tab=runs&run={runs['quick']}")
    page.locator("#runs-live .st-made").get_by_role("button", name="Merge into its base").click(timeout=SLOW)
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("[name=name]")).to_have_value("quick merged")
    dialog.locator("[name=name]").fill("whole again")
    dialog.get_by_role("button", name="Merge").click()
    toast(page, "Started: Merge")
    run = started(page, "merge")
    assert ended(page, run) == "succeeded"
    made = {path.name for path in (server.home / "runs" / run / "output").iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= made and "adapter_config.json" not in made

    card = in_library(page, "whole again")
    expect(card.locator(".st-tag")).to_have_text("Model")
    card.locator("[data-act=more]").click()
    tree = page.get_by_role("dialog").locator(".st-tree")
    expect(tree).to_contain_text("quick")
    expect(tree).to_contain_text("Starter")
    assert not page.get_by_role("dialog").locator("[data-do=merge]").count(), "a whole model has nothing to merge"


def test_an_adapter_is_pushed_from_the_library(page, server, hub, runs):
    card = in_library(page, "slow")
    card.locator("[data-act=more]").click()
    page.get_by_role("dialog").locator("[data-do=push]").click()
    dialog = page.get_by_role("dialog", name="Push to the Hub")
    expect(dialog.locator("[name=private]")).to_be_checked()
    dialog.locator("[name=repo_id]").fill("lab/first-try")
    dialog.locator("[name=license]").fill("mit")
    dialog.get_by_role("button", name="Push", exact=True).click()
    toast(page, "Started: Push to the Hub")
    run = started(page, "publish")
    assert ended(page, run) == "succeeded"
    repo = hub.repos["model", "lab/first-try"]
    wanted = {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "README.md"}
    assert repo.private and wanted <= set(repo.files)
    text = repo.files["README.md"].decode()
    assert "license: mit" in text and "# slow" in text and str(server.home) not in text

    page.evaluate("(run) => studio.openRun(run)", run)
    expect(page.locator("#runs-live .st-pill").first).to_have_text("Done", timeout=SLOW)
    expect(page.locator("#runs-live .st-warnings")).to_contain_text("is not on the Hub")
    expect(page.locator("#runs-live .st-log")).to_contain_text(f"Published: {hub.url}/lab/first-try")


def test_a_push_that_cannot_be_is_told_in_place(open_page, hub, runs):
    before = len(hub.created)
    page = open_page(f"?tab=runs&run={runs['slow']}")
    page.locator("#runs-live .st-made").get_by_role("button", name="Push to the Hub").click(timeout=SLOW)
    dialog = page.get_by_role("dialog", name="Push to the Hub")
    dialog.locator("[name=repo_id]").fill("no/such/place")
    dialog.get_by_role("button", name="Push", exact=True).click()
    expect(page.locator(".st-toast-bad")).to_contain_text("owner/name")
    assert len(hub.created) == before


def test_an_adapter_of_a_replaced_base_is_marked_in_the_library_and_in_the_chat(page, server, runs, monkeypatch):
    monkeypatch.setenv("STUDIO_HOME", str(server.home))
    (row,) = artifacts.listed(run_id=runs["slow"])
    assert row["meta"][bases.KEY] == bases.fingerprint(settings.STARTER), "the training recorded what it was made for"
    edges = [(edge["ref"], edge["role"]) for edge in artifacts.get(row["id"])["parents"]]

    def record(fingerprint: str) -> None:
        meta = row["meta"] | {bases.KEY: fingerprint}
        artifacts.add(row["kind"], row["name"], row["path"], run_id=row["run_id"], meta=meta, made_from=edges)

    record("of another starter")
    try:
        card = in_library(page, "slow")
        told = "slow was made for another version of the starter."
        expect(card.locator(".st-warn")).to_contain_text(told, timeout=SLOW)
        assert not in_library(page, "quick").locator(".st-warn").count()
        card.get_by_role("button", name="Chat").click()
        caution = page.locator("#chat-columns .ch-caution:not([hidden])")
        expect(caution).to_contain_text("Train it again on the starter as it is now", timeout=SLOW)
    finally:
        record(row["meta"][bases.KEY])


def test_a_missing_part_is_installed_from_the_form_that_asks_for_it(page, server):
    page.wait_for_function("Boolean(window.studio?.forms?.finetune)")
    page.evaluate("studio.open('finetune', {values: {dataset: 'shipped:polite', report_to: 'trackio'}})")
    panel = page.locator("#finetune-estimate")
    offer = panel.locator(".st-install")
    expect(offer).to_have_text(re.compile(r"Install Trackio \(about \d+ MB\)"), timeout=SLOW)
    expect(panel.locator(".st-problems")).to_contain_text("Trackio is not installed.")
    assert not list(server.site.glob("trackio*")), "nothing is installed before somebody says so"
    offer.click()
    toast(page, "Trackio is installed.")
    expect(offer).to_have_count(0, timeout=SLOW)
    expect(panel.locator(".st-problems")).to_have_count(0)
    expect(panel.locator("dd").first).to_be_visible()
    assert (server.site / "trackio-0.43.1.dist-info").is_dir()
