"""A run that runs out of memory: the banner offers the next safe setting, one click takes it, and the run succeeds."""

from __future__ import annotations

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import expect  # noqa: E402

RECIPE = {"kind": "sft", "method": "hungry", "dataset": "shipped:polite", "max_steps": 8, "eval_steps": 4, "logging_steps": 1,
          "per_device_train_batch_size": 4, "bf16": "off"}


@pytest.fixture
def home(home, monkeypatch):
    """A studio whose machine has memory for batches of two."""
    for name, value in {"ATELIER_PLUGINS": "tests.train.hungry:register", "ATELIER_TEST_BATCH": "2",
                        "ATELIER_TEST_FROM": "5"}.items():
        monkeypatch.setenv(name, value)
    return home


@pytest.mark.timeout(900)
def test_an_out_of_memory_repaired(server, open_page):
    page = open_page()
    page.wait_for_function("Boolean(window.studio?.bus)")
    run = page.evaluate("(values) => studio.call('submit', {values})", RECIPE)["id"]
    page.evaluate(f"studio.openRun('{run}')")
    banner = page.locator("#runs-live .st-banner")
    expect(banner).to_contain_text("out of memory", timeout=400_000)
    offer = banner.locator("[data-offer]")
    expect(offer).to_have_text("Continue with batch 2 × 2")
    offer.click()
    expect(page.locator("#runs-live .st-pill").first).to_have_text("Done", timeout=400_000)
    expect(banner).to_be_hidden()
    row = page.evaluate("(run) => studio.call('run', {run})", run)
    assert row["recipe"]["per_device_train_batch_size"] == 2 and row["attempt"] == 2
    assert (server.home / "runs" / run / "recipe.attempt-1.yaml").exists()
