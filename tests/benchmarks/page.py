"""From the command to a page one can use, and what the UI process weighs."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import psutil

from tests.e2e.conftest import CHROMIUM, FLAGS, Server

ROUNDS = 3


def rows():
    """Yield (what, measured, aim)."""
    from playwright.sync_api import sync_playwright

    took, first, memory = [], [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for _ in range(ROUNDS):
            with tempfile.TemporaryDirectory() as home:
                server, started = Server(Path(home)), time.perf_counter()
                server.start()
                page = browser.new_page(viewport={"width": 1440, "height": 900})
                opened = time.perf_counter()
                page.goto(server.url)
                page.locator("#finetune-start").wait_for()
                first.append(time.perf_counter() - opened)
                took.append(time.perf_counter() - started)
                memory.append(psutil.Process(server.process.pid).memory_info().rss / 2**20)
                page.close()
                server.stop()
        browser.close()
    yield "command to usable page, cold server", f"{min(took):.1f} ({statistics.median(took):.1f}) s", "5 s"
    yield "page load, warm server", f"{min(first):.1f} ({statistics.median(first):.1f}) s", ""
    yield "UI process memory with one page open", f"{statistics.median(memory):.0f} MB", "250 MB"


if __name__ == "__main__":
    for row in rows():
        print(*row, sep="  |  ")
