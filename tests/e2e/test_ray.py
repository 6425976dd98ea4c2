"""A run on a Ray cluster, from the choice in the form to the result in the library."""

from __future__ import annotations

import pytest

pytest.importorskip("playwright")
pytest.importorskip("ray", reason="the optional part Ray is not installed")
from playwright.sync_api import expect  # noqa: E402

from tests.ray_cluster import Cluster, free_port  # noqa: E402


@pytest.fixture
def cluster():
    made = Cluster()
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.mark.timeout(900)
def test_a_ray_job_is_seen_through(server, open_page, cluster):
    page = open_page("?tab=finetune")
    page.wait_for_function("Boolean(studio.forms.finetune?.values)")
    page.evaluate("studio.send('open_finetune', {values: {dataset: 'shipped:polite', max_steps: 12, logging_steps: 1, name: 'From afar'}})")
    page.wait_for_function("studio.forms.finetune.values.name === 'From afar' && studio.forms.finetune.values.max_steps === 12")
    place = page.locator("#finetune-backend")
    place.locator("[data-place]").select_option("ray")
    address = place.locator("[data-name=address]")
    expect(address).to_have_value("http://127.0.0.1:8265")
    expect(place.locator(".bk-news")).to_contain_text("only the recipe is sent")

    address.fill(f"http://127.0.0.1:{free_port()}")  # nobody there: told where it was typed, nothing is started
    page.locator("#finetune-start").click()
    expect(place.locator(".st-error")).to_contain_text("No Ray cluster answers")

    address.fill(cluster.address)
    page.reload()  # what was typed is still there
    page.wait_for_function("Boolean(studio.forms.finetune?.values)")
    expect(address).to_have_value(cluster.address)
    expect(place.locator(".bk-news")).to_contain_text("only the recipe is sent")
    page.locator("#finetune-start").click()
    live = page.locator("#finetune-live")
    expect(live.locator(".st-run-title p")).to_contain_text(f"Ray cluster at {cluster.address.removeprefix('http://')}", timeout=120_000)
    page.wait_for_function("(studio.lives.finetune?.charts?.lines.loss?.x.length || 0) > 3", timeout=400_000)
    expect(live.locator(".st-pill").first).to_have_text("Done", timeout=300_000)
    run = page.evaluate("studio.call('run', {run: studio.lives.finetune.run})")
    assert run["summary"]["steps"] == 12 and run["backend"]["name"] == "ray"
    made = [model for model in page.evaluate("studio.call('library')")["models"] if model["label"] == "From afar"]
    assert made and made[0]["ref"] == f"library:{run['artifacts'][0]['id']}"
    assert run["artifacts"][0]["path"].startswith(str(server.home))
