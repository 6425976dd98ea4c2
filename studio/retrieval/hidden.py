"""Text in a file that a person does not see but a program reads: comments and unseen elements of web pages, hidden, white or
tiny runs of Word files, white or invisible text of PDF pages.

That such text is there proves nothing; the guard marks the chunks that hold it, and a person looks.
"""

from __future__ import annotations

import io
import re
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

MOST = 200  # findings of a file
LONGEST = 2000  # characters of one
_MOST_BYTES = 32 << 20
_UNSEEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden|opacity\s*:\s*0(?:\.0+)?\s*(?:;|$)"
                     r"|font-size\s*:\s*[01](?:\.\d+)?(?:px|pt|em|%)?\s*(?:;|$)"
                     r"|text-indent\s*:\s*-\d{3,}|(?:left|top)\s*:\s*-\d{3,}|clip\s*:\s*rect\(\s*0", re.I)
_WHITE = re.compile(r"(?<![\w-])color\s*:\s*(?:white|#fff(?:fff)?|rgb\(\s*255\s*,\s*255\s*,\s*255\s*\)|transparent)\b", re.I)
_VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"


def of_file(path: Any, kind: str) -> list[dict[str, str]]:
    """``{kind, text}`` of what is hidden in a file; ``kind`` is comment, unseen, white or tiny. Nothing where it cannot be
    looked into: the reader says what is wrong with a broken file."""
    look = {"html": of_html, "docx": of_docx, "pdf": of_pdf}.get(kind)
    if look is None or not isinstance(path, Path) or path.stat().st_size > _MOST_BYTES:
        return []
    try:
        found = look(path.read_bytes())
    except Exception:  # a hostile file can raise anything in three parsers
        return []
    kept = {(one, " ".join(text.split())[:LONGEST]) for one, text in found if text.strip()}
    return [{"kind": one, "text": text} for one, text in sorted(kept) if len(text) > 2][:MOST]


def of_html(data: bytes) -> list[tuple[str, str]]:
    """Comments, and the text of elements that are styled or marked as unseen."""
    reader = _Html()
    reader.feed(data.decode("utf-8", "replace"))
    reader.close()
    return reader.found + [(kind, "".join(parts)) for kind, parts in reader.texts]


class _Html(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, str]] = []
        self.texts: list[tuple[str, list[str]]] = []
        self._open: list[tuple[str, str]] = []  # (tag, why it is unseen) of every element that is open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        given = {name: value or "" for name, value in attrs}
        style = given.get("style", "")
        # white on a background of its own is read by people
        white = bool(_WHITE.search(style)) and "background" not in style.lower() and "bgcolor" not in given
        why = "unseen" if "hidden" in given or _UNSEEN.search(style) else "white" if white else ""
        for name in ("alt", "title", "aria-label"):  # read out or shown on hover, and long enough to say something
            if len(given.get(name, "")) > 80:
                self.found.append(("unseen", given[name]))
        if tag in _VOID:
            return
        before = self._open[-1][1] if self._open else ""
        if why and not before:
            self.texts.append((why, []))
        self._open.append((tag, before or why))

    def handle_endtag(self, tag: str) -> None:
        for place in range(len(self._open) - 1, -1, -1):
            if self._open[place][0] == tag:
                del self._open[place:]
                return

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1][1] and not any(tag in ("script", "style", "template") for tag, _ in self._open):
            self.texts[-1][1].append(data)

    def handle_comment(self, data: str) -> None:
        if not data.lstrip().startswith("[if"):
            self.found.append(("comment", data))


def of_docx(data: bytes) -> list[tuple[str, str]]:
    """Runs of a Word file that are hidden, white without shading, or of at most two points."""
    from defusedxml import ElementTree

    with zipfile.ZipFile(io.BytesIO(data)) as inside:
        info = inside.getinfo("word/document.xml")
        if info.file_size > _MOST_BYTES:
            return []
        tree = ElementTree.fromstring(inside.read(info))
    found = []
    for run in tree.iter(f"{_W}r"):
        style = run.find(f"{_W}rPr")
        text = "".join(part.text or "" for part in run.iter(f"{_W}t"))
        if style is None or not text.strip():
            continue
        colour, size = style.find(f"{_W}color"), style.find(f"{_W}sz")
        if style.find(f"{_W}vanish") is not None:
            found.append(("unseen", text))
        elif colour is not None and colour.get(f"{_W}val", "").upper() == "FFFFFF" and style.find(f"{_W}shd") is None:
            found.append(("white", text))
        elif size is not None and size.get(f"{_W}val", "99").isdigit() and int(size.get(f"{_W}val", "99")) <= 4:
            found.append(("tiny", text))
    return found


def of_pdf(data: bytes) -> list[tuple[str, str]]:
    """White, invisible or tiny text of a PDF. A page whose text is for the most part invisible is a scan with recognised text
    under its picture, which is no trick."""
    import pypdf

    found: list[tuple[str, str]] = []
    for page in pypdf.PdfReader(io.BytesIO(data)).pages:
        seen, unseen = 0, []
        for kind, text in _of_page(page):
            if kind:
                unseen.append((kind, text))
            else:
                seen += len(text)
        if sum(len(text) for kind, text in unseen if kind == "unseen") <= max(seen, 1) or seen > 200:
            found += unseen
    return found


def _of_page(page: Any) -> list[tuple[str, str]]:
    """(kind, text) of each piece as it is drawn; kind is empty for text that is seen."""
    state: dict[str, Any] = {"white": False, "mode": 0}
    kept: list[dict[str, Any]] = []
    made: list[tuple[str, str]] = []

    def operand(operator: bytes, args: Any, *_: Any) -> None:
        name = operator.decode("latin-1")
        if name == "q":
            kept.append(dict(state))
        elif name == "Q" and kept:
            state.update(kept.pop())
        elif name in ("g", "rg", "sc", "scn") and args:
            numbers = [float(value) for value in args if isinstance(value, (int, float))]
            state["white"] = bool(numbers) and min(numbers) >= 0.98
        elif name == "k" and len(args) == 4:
            state["white"] = max(float(value) for value in args) <= 0.02
        elif name == "Tr" and args:
            state["mode"] = int(args[0])
        elif name in ("Tj", "TJ", "'", '"'):
            state["now"] = "unseen" if state["mode"] in (3, 7) else "white" if state["white"] else ""

    def text(said: str, *more: Any) -> None:
        size = float(more[3]) if len(more) > 3 and more[3] else 12.0
        scale = abs(float(more[1][3])) if len(more) > 1 and more[1] else 1.0
        tiny = size * (scale or 1.0) < 2
        if said.strip():
            made.append((state.get("now") or ("tiny" if tiny else ""), said))

    page.extract_text(visitor_operand_before=operand, visitor_text=text)
    return made
