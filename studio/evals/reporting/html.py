"""A report as one HTML file that loads nothing from outside and runs nothing: no script, styles and pictures inside, all text escaped."""

from __future__ import annotations

import html
from typing import Any

from studio.evals.reporting import blocks, charts

# Nothing may be loaded or run, whatever text got in: pictures are part of the file.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
_LIGHT = {name: color for color, name in charts.NAMES.items()} | {
    "bg": "#ffffff", "sunken": "#f6f5f2", "good-soft": "#e3f3ea", "bad-soft": "#fbe9e7", "accent-soft": "#e9ecfb"}
_DARK = {"bg": "#1b1a19", "sunken": "#272523", "ink": "#ece9e3", "muted": "#aaa49a", "line": "#3a3632", "good": "#62c48f", "bad": "#f2867c",
         "good-soft": "#1b3327", "bad-soft": "#3d211e", "accent-soft": "#262b4d", "s0": "#8797fb", "s1": "#f0955a", "s2": "#4cc3c0",
         "s3": "#c493ea", "s4": "#e0b45c", "s5": "#f087a8", "s6": "#a5c46c"}
_STYLE = """
*{box-sizing:border-box}
html{background:var(--bg);color:var(--ink);font:15px/1.55 system-ui,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;-webkit-text-size-adjust:100%}
body{margin:0 auto;max-width:1000px;padding:36px 24px 80px}
h1{font-size:28px;line-height:1.2;margin:0 0 4px;letter-spacing:-.01em;overflow-wrap:anywhere}
h2{font-size:20px;margin:44px 0 10px;padding-top:14px;border-top:1px solid var(--line)}
h3{font-size:15.5px;margin:26px 0 8px;overflow-wrap:anywhere}
p,li{max-width:75ch;overflow-wrap:anywhere}p{margin:0 0 10px}
.muted{color:var(--muted)}.good{color:var(--good)}.bad{color:var(--bad)}
nav{margin:18px 0 0;display:flex;flex-wrap:wrap;gap:4px 16px}a{color:var(--s0)}
.scroll{overflow-x:auto;margin:10px 0 16px}
table{border-collapse:collapse;font-size:13.5px;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:5px 14px 5px 0;border-bottom:1px solid var(--line);vertical-align:top;overflow-wrap:break-word;max-width:340px}
th{font-weight:600;color:var(--muted)}td.n,th.n{text-align:right;white-space:nowrap}
td.best{font-weight:650}td.good{background:var(--good-soft)}td.bad{background:var(--bad-soft)}td.muted{color:var(--muted)}
td.good,td.bad{padding-left:8px}
figure{margin:12px 0 18px}figure svg{width:100%;height:auto;max-width:760px;display:block}
.qa{border:1px solid var(--line);border-radius:8px;padding:12px 14px;margin:10px 0}.qa>p{font-size:13px;margin:0 0 6px}
pre{margin:0;white-space:pre-wrap;overflow-wrap:anywhere;font:13px/1.5 ui-monospace,Menlo,Consolas,monospace}
.qa dl{margin:10px 0 0;display:grid;gap:8px;grid-template-columns:repeat(auto-fit,minmax(min(240px,100%),1fr))}
.qa dl div{background:var(--sunken);border-radius:6px;padding:8px 10px;border-left:3px solid var(--line);color:inherit}
.qa div.good{border-color:var(--good)}.qa div.bad{border-color:var(--bad)}.qa div.right{border-color:var(--s0)}
dt{font-size:12px;font-weight:600;color:var(--muted)}dd{margin:2px 0 0}
details{margin:8px 0 14px}summary{cursor:pointer;color:var(--muted);font-size:13.5px}
details pre{background:var(--sunken);border-radius:6px;padding:10px 12px;margin-top:6px}
footer{margin-top:56px;border-top:1px solid var(--line);padding-top:12px;font-size:12.5px;color:var(--muted)}
@media print{body{max-width:none;padding:0}h2,h3{break-after:avoid}.qa,figure,tr{break-inside:avoid}}
"""
_e = html.escape


def page(title: str, about: list[str], sections: list[blocks.Section], footer: str) -> str:
    """The whole file."""
    def variables(values: dict[str, str]) -> str:
        return ";".join(f"--{name}:{color}" for name, color in values.items())

    parts = [f"<section>{_heading(section, place)}{''.join(_block(block, f'f{place}-{n}') for n, block in enumerate(section.blocks))}</section>"
             for place, section in enumerate(sections)]
    contents = "".join(f'<a href="#s{place}">{_e(section.title)}</a>' for place, section in enumerate(sections) if section.level == 1)
    return (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{_e(POLICY)}">'
            '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="referrer" content="no-referrer">'
            f"<title>{_e(title)}</title><style>:root{{color-scheme:light;{variables(_LIGHT)}}}@media(prefers-color-scheme:dark){{:root{{color-scheme:dark;"
            f"{variables(_DARK)}}}}}{_STYLE}</style></head><body><header><h1>{_e(title)}</h1>{''.join(f'<p class=muted>{_e(line)}</p>' for line in about)}"
            f"<nav>{contents}</nav></header><main>{''.join(parts)}</main><footer>{_e(footer)}</footer></body></html>")


def _heading(section: blocks.Section, place: int) -> str:
    tag = "h2" if section.level == 1 else "h3"
    return f'<{tag} id="s{place}">{_e(section.title)}</{tag}>'


def _block(block: Any, name: str) -> str:
    match block:
        case blocks.Text():
            return f'<p class="{_e(block.tone)}">{_e(block.text)}</p>'
        case blocks.Points():
            return f"<ul>{''.join(f'<li>{_e(line)}</li>' for line in block.lines)}</ul>"
        case blocks.Table():
            return _table(block)
        case blocks.Chart():
            return f'<figure role="img" aria-label="{_e(block.alt)}">{charts.svg(block.draw, block.height, name)}</figure>'
        case blocks.Answers():
            return _answers(block)
        case blocks.Code():
            return f"<details><summary>{_e(block.title)}</summary><pre class=code>{_e(block.text)}</pre></details>"
    raise TypeError(type(block).__name__)


def _table(block: blocks.Table) -> str:
    def row(tag: str, cells: list[blocks.Cell]) -> str:
        marked = [f"{cell.tone} n" if n in block.numbers else cell.tone for n, cell in enumerate(cells)]
        return "<tr>" + "".join(f'<{tag} class="{_e(mark.strip())}">{_e(cell.text)}</{tag}>' for mark, cell in zip(marked, cells, strict=True)) + "</tr>"

    return (f'<div class="scroll" tabindex="0"><table><thead>{row("th", [blocks.Cell(name) for name in block.head])}</thead>'
            f'<tbody>{"".join(row("td", [blocks.cell(one) for one in line]) for line in block.rows)}</tbody></table></div>')


def _answers(block: blocks.Answers) -> str:
    tone = {True: "good", False: "bad", None: ""}
    parts = [f'<div class="right"><dt>Right answer</dt><dd><pre>{_e(block.target)}</pre></dd></div>'] if block.target else []
    parts += [f'<div class="{tone[right]}"><dt>{_e(label)}{_mark(right)}</dt><dd><pre>{_e(text) or "–"}</pre></dd></div>'
              for label, text, right in block.answers]
    note = f'<p class="muted">{_e(block.note)}</p>' if block.note else ""
    return f'<div class="qa">{note}<pre>{_e(block.prompt)}</pre><dl>{"".join(parts)}</dl></div>'


def _mark(right: bool | None) -> str:
    return {True: " · right", False: " · wrong", None: ""}[right]
