"""What watching a live run of 100,000 points costs: bytes on the wire, the browser's main thread, the server, by tabs.

All tabs are in sight at once, as on as many machines (a hidden tab does not poll), and this machine draws them all:
where that is more than it can do they poll less often, so the server's share is also given per poll. The first tab has
a desktop's window, the others small ones.
"""

from __future__ import annotations

import os
import tempfile
import time
import urllib.request
from pathlib import Path

import psutil

from tests.e2e.conftest import CHROMIUM, FLAGS, Server

POINTS = 100_000
TABS = (1, 5, 20)
SPAN = 10.0  # seconds a row is measured
OPEN = 120_000  # milliseconds a tab may take to show the curve
_DRAWN = "() => window.studio?.lives?.runs?.charts?.charts?.loss?.plot?.data?.[0]?.x?.length > 100"


class Watcher:
    """One browser tab on the run, counting the bytes of its polls and its main thread's work."""

    def __init__(self, context, url: str):
        self.page = context.new_page()
        if len(context.pages) > 1:
            self.page.set_viewport_size({"width": 640, "height": 400})
        self.bytes, self.replies, self._polls = 0, 0, set()
        self.cdp = context.new_cdp_session(self.page)
        self.cdp.send("Network.enable")
        self.cdp.send("Performance.enable")
        self.cdp.on("Network.requestWillBeSent", self._sent)
        self.cdp.on("Network.loadingFinished", self._done)
        self.page.goto(f"{url}/?tab=runs", timeout=OPEN)
        self.page.wait_for_function("window.studio?.bus && studio.lives.runs", timeout=OPEN)

    def watch(self, run: str) -> None:
        self.page.evaluate("(run) => { studio.lives.runs.show(run); }", run)

    def drawn(self) -> None:
        """Wait for the curve."""
        self.page.wait_for_function(_DRAWN, timeout=OPEN, polling=1000)

    def _sent(self, event: dict) -> None:
        if "component_server" in event["request"]["url"] and '"poll"' in event["request"].get("postData", ""):
            self._polls.add(event["requestId"])

    def _done(self, event: dict) -> None:
        if event["requestId"] in self._polls:
            self.bytes += int(event["encodedDataLength"])
            self.replies += 1

    def busy(self) -> float:
        """Seconds of main-thread work so far."""
        metrics = {m["name"]: m["value"] for m in self.cdp.send("Performance.getMetrics")["metrics"]}
        return metrics["TaskDuration"]


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def rows():
    """Yield (what, measured, aim)."""
    from playwright.sync_api import sync_playwright

    before = {name: os.environ.get(name) for name in ("STUDIO_HOME", "ATELIER_PLUGINS")}
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        os.environ |= {"STUDIO_HOME": home, "ATELIER_PLUGINS": "tests.benchmarks.longrun:register"}
        from studio import api

        server, run = Server(Path(home)), None
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            server.start()
            run = api.submit({"kind": "sft", "method": "long", "points": POINTS})["id"]
            _written(Path(home) / "runs" / run / "events.jsonl")
            yield from _measure(server, browser, run)
            urllib.request.urlopen(server.url, timeout=10).close()  # still answering after all that
        finally:
            if run:
                _end(run)
            server.stop()
            browser.close()
            for name, value in before.items():
                os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)


def _measure(server: Server, browser, run: str):
    process = psutil.Process(server.process.pid)
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    watchers: list[Watcher] = []
    measured: list[tuple[int, float, float]] = []
    for tabs in TABS:
        opened = [Watcher(context, server.url) for _ in range(tabs - len(watchers))]
        for watcher in opened:  # all are open first: one that watches slows the opening of the next
            watcher.watch(run)
        for watcher in opened:
            watcher.drawn()
        watchers += opened
        first = watchers[0]
        first.page.wait_for_timeout(2000)
        for watcher in watchers:
            watcher.bytes = watcher.replies = 0
        busy, cpu, began = first.busy(), _cpu(process), time.perf_counter()
        first.page.wait_for_timeout(SPAN * 1000)  # lets every page's messages through
        span = time.perf_counter() - began
        if tabs == 1:
            yield "poll of a live run of 100,000 points", f"{first.bytes / max(1, first.replies):.0f} B", "2000 B"
            yield "  on the wire", f"{first.bytes / span:.0f} B/s", ""
            yield "  browser main thread", f"{100 * (first.busy() - busy) / span:.1f} %", ""
        replies = sum(watcher.replies for watcher in watchers)
        measured.append((tabs, (_cpu(process) - cpu) / span, replies / span))
    context.close()
    time.sleep(3)  # the server takes leave of the tabs
    idle = _share(process, 5.0)
    yield "  server CPU, nobody watching", f"{100 * idle:.1f} %", ""
    for tabs, share, rate in measured:
        yield f"  server CPU, {tabs} watching tab{'s' * (tabs > 1)}", f"{100 * share:.1f} %", ""
        yield "    polls a second, together", f"{rate:.1f}", ""
    yield f"  server CPU of one poll, {tabs} tabs", f"{1000 * (share - idle) / rate:.1f} ms", ""


def _written(events: Path) -> None:
    deadline = time.monotonic() + 120
    while not (events.exists() and events.stat().st_size > POINTS * 100):
        if time.monotonic() > deadline:
            raise SystemExit("the long run did not begin")
        time.sleep(0.2)


def _end(run: str) -> None:
    from studio.jobs import store, supervisor

    supervisor.stop(run, now=True)
    deadline = time.monotonic() + 15
    while not store.is_final(store.get(run)["state"]) and time.monotonic() < deadline:
        time.sleep(0.1)


def _share(process: psutil.Process, span: float) -> float:
    before = _cpu(process)
    time.sleep(span)
    return (_cpu(process) - before) / span


if __name__ == "__main__":
    for row in rows():
        print(*row, sep="  |  ")
