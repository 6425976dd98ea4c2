"""Browser tests: the real server in its own process and workspace, a real Chromium, and no error on the page."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = next((path for path in (shutil.which("chromium"), shutil.which("chromium-browser"),
                                   shutil.which("google-chrome")) if path), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]


class Server:
    """The studio's UI as its own process.

    Args:
        environment: Variables for it, over those of this process.
        python: Interpreter of another environment.
    """

    def __init__(self, home: Path, environment: dict[str, str] | None = None, python: str = sys.executable):
        self.home, self.process, self.took = home, None, 0.0  # took: seconds until it answered
        self.environment, self.python = environment or {}, python
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self, *extra: str) -> None:
        environment = os.environ | {"STUDIO_HOME": str(self.home), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
                                    "PYTHONPATH": str(ROOT)} | self.environment
        with open(self.home / "ui.log", "ab") as log:
            self.process = subprocess.Popen(
                [self.python, "-m", "components.app", "--port", str(self.port), "--no-browser", *extra],
                cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True)
        began = time.monotonic()
        while time.monotonic() < began + 120:
            self.took = time.monotonic() - began
            if self.process.poll() is not None:
                break
            try:
                urllib.request.urlopen(f"{self.url}/config", timeout=2).close()
                return
            except urllib.error.HTTPError:
                return  # it answers, and asks for a login
            except OSError:
                time.sleep(0.2)
        raise AssertionError("the studio did not start:\n" + (self.home / "ui.log").read_text()[-3000:])

    def kill(self) -> None:
        """SIGKILL to the UI process alone, as a crash would."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.kill()


@pytest.fixture(scope="session")
def browser() -> Iterator:
    if CHROMIUM is None:
        pytest.skip("no Chromium here: install Debian's 'chromium' package to run the browser tests")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=30_000)  # two busy cores
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield made
        made.close()


@pytest.fixture
def start_server(browser, home: Path) -> Iterator:
    """``start_server(*arguments)`` -> a running studio on a workspace of its own."""
    made: list[Server] = []

    def start(*arguments: str) -> Server:
        made.append(Server(home))
        made[-1].start(*arguments)
        return made[-1]

    yield start
    for one in made:
        one.stop()


@pytest.fixture
def server(start_server) -> Server:
    """A running studio on a workspace of its own."""
    return start_server()


@pytest.fixture
def open_page(browser, server) -> Iterator:
    """``open_page(path="", width=1440, height=900, dark=False)`` -> a page; an error on any of them fails the test."""
    errors: list[str] = []
    contexts = []

    def make(path: str = "", width: int = 1440, height: int = 900, dark: bool = False):
        context = browser.new_context(viewport={"width": width, "height": height},
                                      color_scheme="dark" if dark else "light", reduced_motion="reduce")
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(server.url + "/" + path)
        page.wait_for_selector("#tabs")
        return page

    yield make
    for context in contexts:
        context.close()
    assert not errors, "errors on the page:\n" + "\n".join(errors)


@pytest.fixture
def page(open_page):
    """The studio's page in a desktop window."""
    return open_page()
