"""The page and its server. Light: no torch here, ever; it may die at any time without harming a run."""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import sys
import threading
import webbrowser

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
_spare = "pyarrow" not in sys.modules
if _spare:  # gradio brings pandas, which takes pyarrow if it is there: 36 MB and half a second for nothing
    sys.modules["pyarrow"] = None  # type: ignore[assignment]
import gradio as gr  # noqa: E402

if _spare:
    del sys.modules["pyarrow"]  # who reads a Parquet file imports it then
from starlette.middleware import Middleware  # noqa: E402

from components import dock, ids, named_api, serving, strings, theme  # noqa: E402
from components.shell import Shell  # noqa: E402
from studio import api  # noqa: E402
from studio.errors import StudioError  # noqa: E402

# id of the tab -> where it is built; a new tab is one line here.
_ALL: list[tuple[str, str]] = [
    ("data", "components.tabs.data:build"),
    ("pretrain", "components.tabs.pretrain:build"),
    ("finetune", "components.tabs.finetune:build"),
    ("align", "components.tabs.align:build"),
    ("merge", "components.tabs.merge:build"),
    ("quantize", "components.tabs.quantize:build"),
    ("chat", "components.tabs.chat:build"),
    ("eval", "components.tabs.eval:build"),
    ("runs", "components.tabs.runs:build"),
    ("library", "components.tabs.library:build"),
]
TABS = [(name, target) for name, target in _ALL if importlib.util.find_spec(target.partition(":")[0])]


def build() -> gr.Blocks:
    """The whole page."""
    with gr.Blocks(title=strings.t("app.title"), fill_width=True, analytics_enabled=False,
                   delete_cache=(86400, 86400)) as demo:
        shell = Shell(demo, [name for name, _ in TABS])
        dock.header()
        with gr.Tabs(selected="finetune", elem_id="tabs"):
            for name, target in TABS:
                with gr.Tab(strings.t(f"tab.{name}"), id=name, elem_id=ids.tab(name)):
                    module, _, attribute = target.partition(":")
                    getattr(importlib.import_module(module), attribute)(shell)
        dock.build()
        named_api.build()
    return demo


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="studio ui", description="Open the studio in a browser.")
    parser.add_argument("--port", type=int, default=None, help="port to serve on (default: the first free from 7860)")
    parser.add_argument("--host", default="127.0.0.1", help="address to bind (default: 127.0.0.1, this machine only)")
    parser.add_argument("--auth", metavar="USER:PASSWORD", help="ask for this name and password")
    parser.add_argument("--no-browser", action="store_true", help="serve without opening a page")
    parser.add_argument("--mcp", action="store_true", help="also serve the named API as MCP tools")
    return parser.parse_args(argv)


def check_bind(host: str, auth: str | None, on_space: bool = False) -> tuple[str, str] | None:
    """The login pair, if any.

    Raises:
        StudioError: for a public address without a login, or a login that is not ``user:password``.
    """
    pair = None
    if auth is not None:
        user, _, password = auth.partition(":")
        if not user or not password:
            raise StudioError("--auth needs a name and a password.", "Write it as --auth name:password.", "auth")
        pair = (user, password)
    if host not in serving.LOOPBACK and pair is None and not on_space:
        raise StudioError(f"Refusing to serve on {host} without a login: anyone who reaches that address could run "
                          "code on this machine by loading a model.",
                          "Add --auth name:password, or leave --host out to serve this machine only.", "host")
    return pair


def main(argv: list[str] | None = None) -> int:
    """Serve the page until interrupted. Returns the exit code."""
    args = arguments(sys.argv[1:] if argv is None else argv)
    on_space = bool(os.environ.get("SPACE_ID"))
    try:
        auth = check_bind(args.host, args.auth, on_space)
        if args.host not in serving.LOOPBACK:
            os.environ["ATELIER_SHARED"] = "1"  # for studio.settings.shared, here and in every run
        supervisor = api.supervise()
    except StudioError as err:
        print(f"{err.message} {err.hint}".strip(), file=sys.stderr)
        return 2
    demo = build()
    demo.queue(default_concurrency_limit=None)
    methods = {f"{method['family']}/{method['name']}": {key: method[key] for key in serving.FACTS}
               for method in api.methods()}
    page = Middleware(serving.Page, tags=lambda language: serving.head([name for name, _ in TABS], methods, language), guard=not on_space,
                      hosts=serving.LOOPBACK if args.host in serving.LOOPBACK else None)
    try:
        _, url, _ = demo.launch(
            server_name="0.0.0.0" if on_space else args.host, server_port=args.port, auth=auth, quiet=True,
            prevent_thread_lock=True, inbrowser=False, footer_links=[], run_history=False, enable_monitoring=False,
            ssr_mode=False, pwa=False, show_error=True, state_session_capacity=200, max_file_size="2gb",
            mcp_server=args.mcp, theme=theme.studio(),
            favicon_path=str(serving.ASSETS / "icons" / "favicon.svg"),
            app_kwargs={"middleware": [page]})
    except OSError as err:
        print(f"Cannot serve on port {args.port}: {err}. Choose another with --port.", file=sys.stderr)
        return 2
    print(f"Atelier is open at {url}", flush=True)
    if not args.no_browser and not on_space:
        webbrowser.open(url)
    ended = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: ended.set())
    ended.wait()
    demo.close(verbose=False)
    supervisor.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
