"""A report as a PDF, by fpdf2. Text is set as text, never read as markup; letters come from the fonts that matplotlib brings."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from studio.evals.reporting import blocks, charts

_TONES = {"good": (29, 122, 74), "bad": (179, 38, 30), "muted": (103, 98, 90), "best": (31, 29, 26), "": (31, 29, 26)}
_LINE = (208, 204, 195)
MOST_LINES = 60  # of one text in print; the HTML file has all of it
# Where a machine keeps letters that DejaVu lacks: Chinese, Japanese, Korean. Used when there, never needed.
_FURTHER = ("NotoSansCJK", "NotoSansTC", "NotoSansSC", "wqy-microhei", "wqy-zenhei", "DroidSansFallback", "uming", "ArialUnicode")


def write(path: Path, title: str, about: list[str], sections: list[blocks.Section], footer: str) -> dict[str, Any]:
    """Write the file.

    Returns:
        ``{"pages": n, "missing": letters that no font here has, as one text}``.
    """
    made = _Pdf(title, footer)
    made.add_page()
    made.set_font("body", "B", 20)
    made.words(title, 9)
    for line in about:
        made.say(line, "muted", 9.5)
    made.ln(2)
    for section in sections:
        made.heading(section)
        for block in section.blocks:
            made.block(block)
    made.output(str(path))
    return {"pages": made.page_no(), "missing": "".join(sorted(made.missing))}


def _fonts() -> list[Path]:
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return [folder / name for name in ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSans-Oblique.ttf", "DejaVuSansMono.ttf")]


def _further() -> Path | None:
    from matplotlib import font_manager

    found = [Path(path) for path in font_manager.findSystemFonts()]
    return next((path for name in _FURTHER for path in found if name.lower() in path.stem.lower().replace(" ", "")), None)


def _Pdf(title: str, footer: str) -> Any:
    """The document class; made here because fpdf is imported only where a report is written."""
    from fpdf import FPDF
    from fpdf.enums import TableBordersLayout, XPos, YPos
    from fpdf.fonts import FontFace

    class Document(FPDF):
        def __init__(self) -> None:
            super().__init__(format="A4")
            plain, bold, slanted, mono = _fonts()
            for family, style, file in (("body", "", plain), ("body", "B", bold), ("body", "I", slanted), ("mono", "", mono)):
                self.add_font(family, style, str(file))
            self.missing: set[str] = set()
            self.known = set(self.fonts["body"].cmap) & set(self.fonts["mono"].cmap)
            if further := _further():
                self.add_font("further", "", str(further))
                self.set_fallback_fonts(["further"], exact_match=False)
                self.known |= set(self.fonts["further"].cmap)
            self.set_title(title)
            self.set_creator("Atelier")
            self.set_auto_page_break(True, 18)
            self.set_margins(18, 18)

        def header(self) -> None:
            if self.page_no() > 1:
                self.set_font("body", "", 7.5)
                self.set_text_color(*_TONES["muted"])
                self.cell(0, 5, self.plain(charts.short(title, 90)), new_x=XPos.LMARGIN, new_y=YPos.NEXT)
                self.ln(3)

        def footer(self) -> None:
            self.set_y(-13)
            self.set_font("body", "", 7.5)
            self.set_text_color(*_TONES["muted"])
            self.cell(self.epw - 20, 5, self.plain(charts.short(footer, 110)))
            self.cell(20, 5, str(self.page_no()), align="R")

        def plain(self, text: str) -> str:
            """Text with letters that no font has as a box; tabs and other controls as spaces."""
            made = []
            for sign in text.replace("\t", "    ").replace("\r", ""):
                if sign == "\n" or ord(sign) in self.known:
                    made.append(sign)
                elif sign.isprintable():
                    self.missing.add(sign)
                    made.append("□")
                else:
                    made.append(" ")
            return "".join(made)

        def words(self, text: str, height: float) -> None:
            self.multi_cell(0, height, self.plain(text), align="L", new_x=XPos.LMARGIN, new_y=YPos.NEXT)

        def say(self, text: str, tone: str = "", size: float = 9.5) -> None:
            self.set_font("body", "", size)
            self.set_text_color(*_TONES.get(tone, _TONES[""]))
            self.words(text, size * 0.53)
            self.ln(1)

        def heading(self, section: blocks.Section) -> None:
            first = section.blocks[0] if section.blocks else None
            if self.will_page_break(18 + self.tall(first) if isinstance(first, blocks.Chart) else 34):  # a heading stays with what follows
                self.add_page()
            self.ln(4)
            self.start_section(self.plain(section.title), section.level - 1)
            self.set_text_color(*_TONES[""])
            self.set_font("body", "B", 14 if section.level == 1 else 11)
            self.words(section.title, 7)
            self.ln(1)

        def block(self, block: Any) -> None:
            match block:
                case blocks.Text():
                    self.say(block.text, block.tone)
                case blocks.Points():
                    for line in block.lines:
                        self.say(f"•  {line}")
                case blocks.Table():
                    self.grid(block)
                case blocks.Chart():
                    self.picture(block)
                case blocks.Answers():
                    self.asked(block)
                case blocks.Code():
                    self.say(block.title, "muted", 8.5)
                    self.verbatim(block.text)
                case _:
                    raise TypeError(type(block).__name__)

        def grid(self, block: blocks.Table) -> None:
            if not block.rows:
                return
            many = len(block.head)
            size = 8.5 if many <= 6 else 7.5 if many <= 9 else 6
            self.set_font("body", "", size)
            self.set_text_color(*_TONES[""])
            self.set_draw_color(*_LINE)
            shares = block.wide or _shares(block)
            aligned = tuple("RIGHT" if n in block.numbers else "LEFT" for n in range(many))
            with self.table(col_widths=shares, text_align=aligned, line_height=size * 0.55, padding=(0.8, 1.2), borders_layout=TableBordersLayout.HORIZONTAL_LINES,
                            headings_style=FontFace(emphasis="BOLD", color=_TONES["muted"]), first_row_as_headings=True) as table:
                table.row([self.plain(name) for name in block.head])
                for line in block.rows:
                    row = table.row()
                    for one in map(blocks.cell, line):
                        style = FontFace(color=_TONES.get(one.tone, _TONES[""]), emphasis="BOLD" if one.tone == "best" else None)
                        row.cell(self.plain(one.text[:1500]), style=style)
            self.ln(3)

        def tall(self, block: blocks.Chart) -> float:
            return block.height / charts.WIDTH * self.epw

        def picture(self, block: blocks.Chart) -> None:
            if self.will_page_break(min(self.tall(block), 230)):
                self.add_page()
            self.image(io.BytesIO(charts.png(block.draw, block.height)), w=self.epw, alt_text=block.alt)
            self.ln(3)

        def asked(self, block: blocks.Answers) -> None:
            if self.will_page_break(28):
                self.add_page()
            if block.note:
                self.say(block.note, "muted", 8)
            self.verbatim(block.prompt)
            if block.target:
                self.named("Right answer", block.target, "")
            for label, text, right in block.answers:
                mark = {True: " · right", False: " · wrong", None: ""}[right]
                self.named(label + mark, text or "–", {True: "good", False: "bad", None: ""}[right])
            self.ln(3)

        def named(self, name: str, text: str, tone: str) -> None:
            self.set_x(self.l_margin + 6)
            self.set_font("body", "B", 8)
            self.set_text_color(*_TONES[tone])
            self.multi_cell(self.epw - 6, 4.4, self.plain(name), align="L", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
            self.verbatim(text, 6)

        def verbatim(self, text: str, indent: float = 0) -> None:
            lines = text.split("\n")
            kept = "\n".join(line[:4000] for line in lines[:MOST_LINES]) + (f"\n… {len(lines) - MOST_LINES} more lines" if len(lines) > MOST_LINES else "")
            self.set_x(self.l_margin + indent)
            self.set_font("mono", "", 8)
            self.set_text_color(*_TONES[""])
            self.multi_cell(self.epw - indent, 4.1, self.plain(kept), align="L", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
            self.ln(0.8)

    return Document()


def _shares(block: blocks.Table) -> tuple[int, ...]:
    """How wide columns are against each other: by their text, within limits, so that one long cell does not starve the rest."""
    columns = [[block.head[n], *(blocks.cell(row[n]).text for row in block.rows[:200])] for n in range(len(block.head))]
    longest = [max(max((len(word) for word in text.split()), default=1) for text in column) for column in columns]
    typical = [sum(len(text) for text in column) / len(column) for column in columns]
    return tuple(int(max(6, min(26, word), min(44, mean))) for word, mean in zip(longest, typical, strict=True))
