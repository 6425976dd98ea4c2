"""The page's own files, and its real ``<head>``.

Gradio adds a custom head by script, after the first paint and in no fixed order with its components. This middleware
writes the styles and scripts into the page itself, so nothing flashes unstyled and ``window.studio`` is there first.
It also serves the files, from this machine only, compresses the page, which gradio sends as it is, and hands out files
that were offered for download.
"""

from __future__ import annotations

import functools
import gzip
import json
import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import plotly
from starlette.responses import FileResponse, PlainTextResponse

from components import strings

ASSETS = Path(__file__).resolve().parent.parent / "assets"
PREFIX = "/studio/"
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
STYLES = ("base.css", "parts.css", "gradio.css", "page.css", "live.css", "align.css", "chat.css", "play.css", "lab.css", "engines.css", "retrieval.css", "tools.css", "data.css",
          "data_table.css", "rewards.css", "sweep.css", "flow.css", "backends.css", "merge.css", "quantize.css", "evals.css", "insight.css", "judge.css", "bench.css", "probes.css", "look.css")
SCRIPTS = ("core.js", "words.js", "measure.js", "form.js", "methods.js", "panel.js", "sides.js", "watched.js", "charts.js", "rollouts.js",
           "artifacts.js", "live.js", "dock.js", "tour.js", "runs.js", "notify.js", "library.js", "chat_text.js",
           "chat_picker.js", "chat_parts.js", "chat_past.js", "play.js", "chat.js", "arena.js", "lab_tokens.js", "lab_speculative.js", "lab_decode.js", "engines.js", "retrieval.js", "retrieval_ask.js", "tools.js", "data_parts.js", "data_steps.js", "data_bring.js",
           "data_facts.js", "data_strip.js", "data_versions.js", "data_row.js", "data_scroll.js", "data_filters.js",
           "data_side.js", "data_table.js", "data_review.js", "data_report.js", "data_plots.js", "data_stats.js",
           "data_doctor.js", "data_job.js", "data_actions.js", "data.js", "evals.js", "evals_pick.js", "evals_start.js", "evals_scores.js", "evals_answers.js",
           "evals_results.js", "insight_runs.js", "report.js", "leaderboard.js", "ablation.js", "insight_compare.js", "errors.js", "evals_against.js", "judge.js", "judge_budget.js", "probes.js", "probes_speed.js", "look.js", "look_plots.js", "bench_form.js", "bench.js", "rewards.js", "sweep.js",
           "sweep_view.js", "flow.js", "flow_view.js", "backends.js", "merge_values.js", "merge_slices.js", "merge.js", "merge_panel.js",
           "merge_after.js", "models.js", "family.js",
           "quantize_pareto.js", "quantize_export.js", "quantize.js", "quantize_view.js", "quantize_learn.js")
FACTS = ("title", "summary", "paper", "group", "shape")  # what the page's scripts know of a method
_FOLDERS = {"css": ASSETS / "css", "js": ASSETS / "js", "icons": ASSETS / "icons"}
_PLOTLY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
_OFFER_SECONDS, _MOST_OFFERS = 3600, 500
_offers: dict[str, tuple[Path, float]] = {}
_OTHERS = re.compile(rb'<meta (?:property="og:|name="twitter:)[^>]*>\s*|<link rel="manifest"[^>]*>\s*')


def file_of(path: str) -> Path | None:
    """The file behind ``/studio/<folder>/<name>``, or None."""
    if path == "vendor/plotly.min.js":
        return _PLOTLY
    folder, _, name = path.partition("/")
    if folder not in _FOLDERS or not re.fullmatch(r"[\w-]+\.(css|js|svg)", name):
        return None
    found = _FOLDERS[folder] / name
    return found if found.is_file() else None


def offer(path: Path) -> str:
    """An address under which ``path`` may be downloaded for an hour, by whoever was told it.

    Who may have the file is asked where the address is given out, behind the login; it cannot be guessed.
    """
    now = time.time()
    for token in [key for key, (_, until) in _offers.items() if until < now] + list(_offers)[:-_MOST_OFFERS]:
        _offers.pop(token, None)
    token = secrets.token_urlsafe(24)
    _offers[token] = (path, now + _OFFER_SECONDS)
    return f"studio/download/{token}"


def offered(path: str) -> Path | None:
    """The file behind ``download/<token>``, or None."""
    folder, _, token = path.partition("/")
    file, until = _offers.get(token, (None, 0.0))
    return file if folder == "download" and file and until > time.time() and file.is_file() else None


def head(tabs: list[str], methods: dict[str, dict[str, str]], language: str = "en") -> str:
    """Tags for the page's head in one language. ``methods`` maps ``kind/method`` to its ``FACTS``."""
    styles = [ASSETS / "css" / name for name in STYLES]
    scripts = [ASSETS / "js" / name for name in SCRIPTS]
    styles, scripts = ([path for path in paths if path.exists()] for paths in (styles, scripts))
    version = int(max(path.stat().st_mtime for path in [*styles, *scripts, _PLOTLY]))
    facts = {**strings.spoken(language), "tabs": tabs, "methods": methods, "version": version}
    data = json.dumps(facts).replace("<", "\\u003c")
    tags = [f'<link rel="stylesheet" href="studio/css/{path.name}?v={version}">' for path in styles]
    tags += ['<link rel="icon" href="studio/icons/favicon.svg" type="image/svg+xml">',
             f"<script>window.STUDIO={data}</script>"]
    tags += [f'<script src="studio/js/{path.name}?v={version}"></script>' for path in scripts]
    return "\n".join(tags)


def refusal(method: str, headers: dict[str, str], hosts: frozenset[str] | None) -> str:
    """Why a request is not served, or an empty string.

    Another site open in the same browser must not start or delete runs here (cross-site posts), nor reach a studio
    that serves this machine alone under a name of its own (DNS rebinding).

    Args:
        hosts: Names the studio answers to; ``None`` for any.
    """
    host = headers.get("host", "")
    if hosts is not None and (urlsplit(f"//{host}").hostname or "") not in hosts:
        return f"This studio does not answer to {host[:80]}."
    origin = headers.get("origin", "")
    if method in ("POST", "PUT", "DELETE") and origin and origin != "null":
        if urlsplit(origin).netloc not in (host, headers.get("x-forwarded-host", host)):
            return "This request comes from another site."
    return ""


class Page:
    """ASGI middleware: own files under ``/studio/``, own head in ``/``, no requests from other sites.

    Args:
        tags: Language -> the tags of the head.
    """

    def __init__(self, app: Any, tags: Callable[[str], str], hosts: frozenset[str] | None = None, guard: bool = True):
        self.app, self.tags, self.hosts, self.guard = app, functools.cache(lambda language: tags(language).encode()), hosts, guard

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        path = scope.get("path", "")
        if scope["type"] == "http" and self.guard:
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            if why := refusal(scope["method"], headers, self.hosts):
                await PlainTextResponse(why, 403)(scope, receive, send)
                return
        if scope["type"] != "http" or not (path == "/" or path.startswith(PREFIX)):
            await self.app(scope, receive, send)
        elif path == "/":
            await self._page(scope, receive, send)
        elif found := file_of(path[len(PREFIX):]):
            headers = {"Cache-Control": "public, max-age=31536000, immutable"} if scope["query_string"] else {}
            await FileResponse(found, headers=headers)(scope, receive, send)
        elif found := offered(path[len(PREFIX):]):
            await FileResponse(found, filename=found.name, media_type="application/octet-stream",
                               headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"})(
                                   scope, receive, send)
        else:
            await PlainTextResponse("Not found", 404)(scope, receive, send)

    async def _page(self, scope: dict, receive: Any, send: Any) -> None:
        start: dict = {}
        body = bytearray()

        async def collect(message: dict) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
                return
            body.extend(message.get("body", b""))
            if not message.get("more_body"):
                await self._finish(scope, start, bytes(body), send)

        await self.app(scope, receive, collect)

    async def _finish(self, scope: dict, start: dict, body: bytes, send: Any) -> None:
        headers = {name.lower(): value for name, value in start["headers"]}
        if headers.get(b"content-type", b"").startswith(b"text/html") and b"<head>" in body:
            body = _OTHERS.sub(b"", body)
            cut = body.index(b'<script type="module"') if b'<script type="module"' in body else body.index(b"</head>")
            given = {name: value.decode("latin-1") for name, value in scope["headers"]}
            language = strings.asked(given.get(b"accept-language", ""), given.get(b"cookie", ""))
            body = body[:cut] + self.tags(language) + b"\n" + body[cut:]
            body = re.sub(rb'<html\s+lang="\w+"', f'<html lang="{language}"'.encode(), body, count=1)
            if "gzip" in given.get(b"accept-encoding", ""):
                body = gzip.compress(body, 5)
                headers[b"content-encoding"] = b"gzip"
            headers[b"content-length"] = str(len(body)).encode()
            headers |= {b"cache-control": b"no-store", b"vary": b"accept-language, cookie"}
        await send(start | {"headers": list(headers.items())})
        await send({"type": "http.response.body", "body": body})
