"""The pictures of a report, by matplotlib. Colours are named, so that the HTML file can change them with the reader's theme."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

INK, MUTED, LINE, GOOD, BAD = "#1f1d1a", "#67625a", "#e4e1da", "#1d7a4a", "#b3261e"
SERIES = ("#3346c8", "#c2561a", "#0f8a8a", "#9b4dca", "#b7791f", "#c2416b", "#5b7d2b")
NAMES = {INK: "ink", MUTED: "muted", LINE: "line", GOOD: "good", BAD: "bad"} | {color: f"s{n}" for n, color in enumerate(SERIES)}
WIDTH = 7.0  # inches
_IDS = re.compile(r'(\bid="|url\(#|href="#)')
_STYLE = {"font.family": "DejaVu Sans", "font.size": 8.5, "text.color": INK, "axes.edgecolor": LINE, "axes.labelcolor": MUTED, "xtick.color": MUTED,
          "ytick.color": MUTED, "axes.grid": True, "grid.color": LINE, "grid.linewidth": 0.6, "axes.axisbelow": True, "axes.spines.top": False,
          "axes.spines.right": False, "legend.frameon": False, "legend.fontsize": 8, "svg.fonttype": "none", "svg.hashsalt": "atelier",
          "text.parse_math": False, "axes.unicode_minus": True, "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none"}


def figure(draw: Callable[[Any], None], height: float) -> Any:
    """A figure that ``draw`` drew on; never shown, closed by nobody, so it costs no window."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        made = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(made)
        return made


def svg(draw: Callable[[Any], None], height: float, name: str) -> str:
    """An ``<svg>`` element whose ids begin with ``name`` and whose colours are variables of the page."""
    import matplotlib

    out = io.StringIO()
    made = figure(draw, height)
    with matplotlib.rc_context(_STYLE):
        made.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg"):], flags=re.DOTALL)
    text = _IDS.sub(rf"\1{name}-", text)
    text = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">',
                  text, count=1)
    for color, variable in NAMES.items():
        text = text.replace(color, f"var(--{variable})")
    return text


def png(draw: Callable[[Any], None], height: float, dpi: int = 200) -> bytes:
    import matplotlib

    out = io.BytesIO()
    made = figure(draw, height)
    with matplotlib.rc_context(_STYLE):
        made.savefig(out, format="png", dpi=dpi, facecolor="white")
    return out.getvalue()


def short(text: str, most: int = 28) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[:most - 1]}…"


def curves(lines: Sequence[tuple[str, Sequence[tuple[float, float]], str]], title: str) -> Callable[[Any], None]:
    """Lines over steps: ``(label, [(step, value)], colour)``; a label that ends in ``validation`` is dotted."""
    def draw(made: Any) -> None:
        axes = made.subplots()
        for label, points, color in lines:
            few = len(points) < 30
            axes.plot(*zip(*points, strict=True), label=short(label, 40), color=color, linewidth=1.5, marker="o" if few else None, markersize=3,
                      linestyle=":" if label.endswith("validation") and not few else "-")
        axes.set_title(short(title, 80), loc="left", fontsize=9, color=INK)
        axes.set_xlabel("step")
        axes.margins(x=0.01)
        if len(lines) > 1:
            axes.legend(loc="best")
    return draw


def bars(labels: Sequence[str], groups: Sequence[tuple[str, Sequence[float | None], Sequence[float | None]]], title: str,
         top: float | None = None) -> Callable[[Any], None]:
    """Groups of bars with their standard errors: ``(model, values, errors)`` over ``labels``."""
    def draw(made: Any) -> None:
        axes = made.subplots()
        width = 0.8 / max(1, len(groups))
        for place, (name, values, errors) in enumerate(groups):
            known = [(x, value, error or 0.0) for x, (value, error) in enumerate(zip(values, errors, strict=True)) if value is not None]
            if known:
                at = [x + (place - (len(groups) - 1) / 2) * width for x, _, _ in known]
                axes.bar(at, [value for _, value, _ in known], width * 0.92, label=short(name), color=SERIES[place % len(SERIES)],
                         yerr=[error for _, _, error in known], error_kw={"elinewidth": 1, "ecolor": MUTED, "capsize": 2})
        axes.set_xticks(range(len(labels)), [short(label, 22) for label in labels], rotation=20 if len(labels) > 5 else 0,
                        ha="right" if len(labels) > 5 else "center")
        axes.grid(axis="x", visible=False)
        axes.set_title(short(title, 80), loc="left", fontsize=9, color=INK)
        if top is not None:
            axes.set_ylim(0, top * 1.02)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14 if len(labels) <= 5 else -0.3), ncols=min(4, len(groups)))
    return draw


def forest(lines: Sequence[tuple[str, float, float | None, float | None, bool]], title: str) -> Callable[[Any], None]:
    """Differences with their intervals: ``(label, delta, low, high, worse)``; the line of no difference in the middle."""
    def draw(made: Any) -> None:
        axes = made.subplots()
        for place, (label, delta, low, high, worse) in enumerate(lines):
            y = len(lines) - 1 - place
            sure = low is not None and (low > 0 or high < 0)
            color = BAD if worse and sure else GOOD if sure else MUTED
            if low is not None:
                axes.plot([low, high], [y, y], color=color, linewidth=1.6, solid_capstyle="butt")
            axes.plot([delta], [y], "o", color=color, markersize=4.5)
        axes.axvline(0, color=MUTED, linewidth=0.8)
        axes.set_yticks(range(len(lines)), [short(line[0], 42) for line in lines][::-1])
        axes.set_ylim(-0.7, len(lines) - 0.3)
        axes.grid(axis="y", visible=False)
        axes.set_title(short(title, 80), loc="left", fontsize=9, color=INK)
    return draw


def lineage(nodes: Sequence[dict[str, Any]], edges: Sequence[dict[str, Any]]) -> Callable[[Any], None]:
    """A family tree as :func:`studio.api.family.arranged` places it; generations run to the right."""
    def draw(made: Any) -> None:
        axes = made.subplots()
        at = {node["ref"]: (node["x"], -node["y"]) for node in nodes}
        for edge in edges:
            if edge["parent"] in at and edge["child"] in at:
                axes.annotate("", at[edge["child"]], at[edge["parent"]], arrowprops={
                    "arrowstyle": "-|>", "color": MUTED, "shrinkA": 7, "shrinkB": 7, "linewidth": 0.9,
                    "linestyle": ":" if edge["role"] in ("data", "dataset", "validation", "calibration") else "-"})
        for node in nodes:
            x, y = at[node["ref"]]
            data = node["kind"] == "dataset"
            axes.plot([x], [y], "s" if data else "o", markersize=7 if data else 9, color=SERIES[2] if data else SERIES[0])
            axes.annotate(short(node["label"] or node["ref"], 24), (x, y), xytext=(0, -15), textcoords="offset points", ha="center", va="top",
                          fontsize=7.5)
        xs, ys = [p[0] for p in at.values()] or [0], [p[1] for p in at.values()] or [0]
        axes.set_xlim(min(xs) - 0.55, max(xs) + 0.55)
        axes.set_ylim(min(ys) - 0.8, max(ys) + 0.5)
        axes.axis("off")
    return draw
