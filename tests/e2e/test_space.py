"""On a Space and on a shared machine: who may start what, and who sees what."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("playwright")
from itsdangerous import TimestampSigner  # noqa: E402
from playwright.sync_api import expect  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
SECRET = "not-a-secret"
SPACE = {"SYSTEM": "spaces", "SPACE_ID": "someone/studio", "OAUTH_CLIENT_ID": "id", "OAUTH_CLIENT_SECRET": SECRET,
         "OAUTH_SCOPES": "openid profile", "OPENID_PROVIDER_URL": "https://huggingface.co"}


def cookie(user: str, seconds: float = 3600) -> str:
    """The session cookie that gradio sets after a login through the Hub."""
    info = {"oauth_info": {"userinfo": {"preferred_username": user, "name": user, "sub": user}, "scope": "openid",
                           "expires_at": time.time() + seconds, "access_token": "none"}}
    signer = TimestampSigner(hashlib.sha256((SECRET + "-v4").encode()).hexdigest())
    return "session=" + signer.sign(base64.b64encode(json.dumps(info).encode())).decode()


@pytest.fixture
def space(start_server, monkeypatch):
    for name, value in SPACE.items():
        monkeypatch.setenv(name, value)
    return start_server()


def visit(browser, url: str, user: str | None, seconds: float = 3600):
    context = browser.new_context(extra_http_headers={"Cookie": cookie(user, seconds)} if user else {})
    page = context.new_page()
    page.goto(url)
    page.wait_for_selector("#finetune-dataset input", timeout=40_000)
    return page


def start(page) -> None:
    page.wait_for_function("window.studio?.forms?.finetune")
    page.evaluate("studio.open('finetune', {values: {dataset: 'shipped:polite', max_steps: 2, name: 'mine'}})")
    expect(page.locator("#finetune-estimate dd").first).to_have_text("2", timeout=20_000)
    page.click("#finetune-start")


@pytest.mark.timeout(240)
def test_on_a_space_each_person_sees_their_own_runs(browser, space):
    stranger = visit(browser, space.url, None)
    start(stranger)
    expect(stranger.locator(".st-toast-bad")).to_contain_text("Sign in first", timeout=20_000)
    late = visit(browser, space.url, "ann", seconds=-5)
    start(late)
    expect(late.locator(".st-toast-bad")).to_contain_text("Sign in first", timeout=20_000)
    assert not list((space.home / "runs").iterdir())

    ann = visit(browser, space.url, "ann")
    start(ann)
    expect(ann.locator("#finetune-live h1")).to_have_text("mine", timeout=30_000)
    run = ann.evaluate("studio.lives.finetune.run")
    expect(ann.locator("#finetune-live .st-pill").first).to_have_text("Done", timeout=120_000)

    bob = visit(browser, space.url, "bob")
    for page, count in ((ann, 1), (bob, 0), (stranger, 0)):
        assert len(page.evaluate("studio.call('runs')")) == count
    for what in ("poll", "run", "stop", "remove", "resume", "card", "run_script"):
        for page in (bob, stranger):
            refused = page.evaluate(f"studio.call('{what}', {{run: '{run}'}}).then(() => '', (err) => err.message)")
            assert refused, what
    seen = {who: len(page.evaluate("studio.call('library')")["models"]) for who, page in (("ann", ann), ("bob", bob))}
    assert seen["ann"] > seen["bob"]


@pytest.mark.timeout(60)
def test_a_public_bind_without_a_login_is_refused_with_a_reason(home):
    done = subprocess.run([sys.executable, "-m", "components.app", "--host", "0.0.0.0", "--no-browser"], cwd=ROOT,
                          capture_output=True, text=True, timeout=50)
    assert done.returncode == 2
    assert "login" in done.stderr and "--auth" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.timeout(90)
def test_with_a_login_nothing_is_told_before_it(start_server):
    server = start_server("--auth", "ann:secret")
    body = json.dumps({"data": {}, "fn_name": "runs", "component_id": 1, "session_hash": "abc"}).encode()
    for path, data in (("/gradio_api/info", None), ("/gradio_api/component_server", body)):
        request = urllib.request.Request(server.url + path, data=data, headers={"Content-Type": "application/json"})
        with pytest.raises(urllib.error.HTTPError) as err:
            urllib.request.urlopen(request)
        assert err.value.code == 401


@pytest.mark.timeout(60)
def test_other_sites_and_other_names_are_turned_away(server):
    for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example", "Content-Type": "text/plain"}):
        request = urllib.request.Request(server.url + "/gradio_api/component_server", data=b"{}", headers=headers)
        with pytest.raises(urllib.error.HTTPError) as err:
            urllib.request.urlopen(request)
        assert err.value.code == 403
