"""What every tab is given: the page, and a bus by which one tab opens another.

In the browser ``studio.open("chat", {"models": ["starter", "library:ab12"]})`` shows the tab and then runs every
handler that the tab registered with :meth:`Shell.on_open`, with the detail as its first argument.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from components import arena_rpc, backends_rpc, bench_rpc, chat_rpc, data_rpc, engines_rpc, eval_rpc, flow_rpc, insight_rpc, lab_rpc, merge_rpc, quantize_rpc, retrieval_rpc, rewards_rpc, rpc, sweep_rpc, tools_rpc
from components.ids import eid

QUIET = {"show_progress": "hidden", "api_visibility": "private"}

_BUS = "const events = [%s]; studio.ready(server, (name, detail) => trigger(name, {detail}));"


class Shell:
    """Handle on the page while it is being built.

    Attributes:
        demo: The ``gr.Blocks``.
        tabs: Ids of the tabs shown.
    """

    def __init__(self, demo: gr.Blocks, tabs: Sequence[str]):
        self.demo, self.tabs = demo, list(tabs)
        names = ", ".join(f"'open_{tab}', 'refresh_{tab}'" for tab in self.tabs)
        self._bus = gr.HTML("", html_template="<span></span>", js_on_load=_BUS % names, elem_id=eid("shell", "bus"),
                            elem_classes=["st-bus"],
                            server_functions=rpc.FUNCTIONS + chat_rpc.FUNCTIONS + data_rpc.FUNCTIONS
                            + arena_rpc.FUNCTIONS + engines_rpc.FUNCTIONS + lab_rpc.FUNCTIONS + retrieval_rpc.FUNCTIONS + tools_rpc.FUNCTIONS + rewards_rpc.FUNCTIONS + sweep_rpc.FUNCTIONS + backends_rpc.FUNCTIONS + flow_rpc.FUNCTIONS
                            + eval_rpc.FUNCTIONS + bench_rpc.FUNCTIONS + merge_rpc.FUNCTIONS + quantize_rpc.FUNCTIONS + insight_rpc.FUNCTIONS)

    def on_open(self, tab: str, fn: Callable[[dict], Any], inputs: Any = None, outputs: Any = None) -> Any:
        """Run ``fn(detail, *inputs)`` when another part of the page opens ``tab``."""

        def handler(event: gr.EventData, *values: Any) -> Any:
            return fn(dict(event._data.get("detail") or {}), *values)

        # gr.EventData is recognised by annotation; "from __future__ annotations" turned it into a string here.
        handler.__annotations__ = {"event": gr.EventData}
        # "multiple": by default gradio drops an event while the one before it is still at work.
        return getattr(self._bus, f"open_{tab}")(handler, inputs, outputs, trigger_mode="multiple", **QUIET)

    def on_refresh(self, tab: str, fn: Callable[..., Any], outputs: Any = None) -> Any:
        """Run ``fn`` when ``tab`` is shown again, e.g. to offer models made meanwhile."""
        return getattr(self._bus, f"refresh_{tab}")(fn, None, outputs, **QUIET)
