"""Twenty people vote at once: how long a battle and a vote take beside one voter alone, and that every vote counts once.

Each voter is a tab of a real browser that does what the arena view does (start a battle, poll it, vote, fetch the ranking), without
thinking time. The two models are a server that answers at once, so what is measured is the studio. All tabs are drawn by this machine too.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import psutil

from tests.benchmarks.poll import OPEN
from tests.e2e.conftest import CHROMIUM, FLAGS, Server
from tests.llm_stand_in import StandIn

VOTERS, VOTES = (1, 20), 10
_VOTE = """async ([votes, voter]) => {
  const times = { battle: [], vote: [] }, clock = () => performance.now();
  for (let i = 0; i < votes; i++) {
    let began = clock(), battle = await studio.call('arena_start', { prompt: `Question ${i} of voter ${voter}` });
    while (battle.state === 'answering') { await new Promise((done) => setTimeout(done, 250)); battle = await studio.call('arena_poll', { id: battle.id }); }
    times.battle.push(clock() - began);
    began = clock();
    await studio.call('arena_vote', { id: battle.id, vote: 'a' });
    times.vote.push(clock() - began);
    await studio.call('arena', {});
  }
  window.voted = times;
}"""


def rows():
    """Yield (what, measured, aim)."""
    from playwright.sync_api import sync_playwright

    with (tempfile.TemporaryDirectory() as home, sync_playwright() as playwright, StandIn(lambda asked: "One.") as one,
          StandIn(lambda asked: "Two.") as two):
        server = Server(Path(home))
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            server.start()
            context = browser.new_context(viewport={"width": 640, "height": 400})
            pages = []
            for _ in range(max(VOTERS)):
                page = context.new_page()
                page.goto(f"{server.url}/?tab=chat&view=arena", timeout=OPEN)
                page.wait_for_function("Boolean(window.studio?.bus)", timeout=OPEN)
                pages.append(page)
            pages[0].evaluate("(models) => studio.call('arena_setup', {values: {models}})", [one.address, two.address])
            yield from _measure(psutil.Process(server.process.pid), pages)
        finally:
            server.stop()
            browser.close()


def _measure(process: psutil.Process, pages: list):
    alone: dict[str, float] = {}
    for voters in VOTERS:
        before, began, cpu = _votes(pages[0]), time.perf_counter(), sum(process.cpu_times()[:2])
        for number, page in enumerate(pages[:voters]):
            page.evaluate("window.voted = null")
            page.evaluate(f"([votes, voter]) => {{ ({_VOTE})([votes, voter]); }}", [VOTES, number])
        for page in pages[:voters]:
            page.wait_for_function("window.voted", timeout=OPEN, polling=500)
        span = time.perf_counter() - began
        counted = _votes(pages[0]) - before
        if counted != voters * VOTES:
            raise SystemExit(f"{counted} votes were counted of {voters * VOTES}")
        times = {name: [value for page in pages[:voters] for value in page.evaluate("window.voted")[name]] for name in ("battle", "vote")}
        many = f"{voters} voter{'s' * (voters > 1)}"
        yield f"arena, {many}: votes a minute", f"{60 * counted / span:.0f}", ""
        yield "  server CPU of one vote, its battle and ranking", f"{1000 * (sum(process.cpu_times()[:2]) - cpu) / counted:.0f} ms", ""
        for name, found in times.items():
            middle, late = statistics.median(found), sorted(found)[int(0.95 * (len(found) - 1))]
            yield f"  {name}, median and 95th of 100", f"{middle:.0f} / {late:.0f} ms", ""
            if name in alone:
                yield f"  {name}, against one voter", f"{middle / alone[name]:.1f} x", ""
            alone[name] = middle


def _votes(page) -> int:
    return page.evaluate("studio.call('arena', {}).then((found) => found.votes)")
