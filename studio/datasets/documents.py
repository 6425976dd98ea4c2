"""Documents as rows of text: PDF by page, Word files and web pages by section, each with its title and source.

Rows are ``{"text", "title", "page" or "section", "source"}``. Pictures are not read: a scanned page has no text here.
"""

from __future__ import annotations

import io
import logging
import re
import zipfile
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import IO, Any

from studio.datasets import packed
from studio.datasets.packed import File, Member, refuse
from studio.datasets.roles import Detected
from studio.datasets.rows import Reader, Row
from studio.errors import StudioError

MAX_DOCUMENT = 256 << 20  # bytes of a file that has to be held in memory as a whole
MAX_PAGE = 32 << 20  # bytes of a web page
_BLOCKS = {"p", "div", "li", "tr", "h1", "h2", "h3", "h4", "h5", "h6", "pre", "blockquote", "section", "article",
           "table",
           "ul", "ol", "br", "dt", "dd"}
_BROKEN_WORD = re.compile(r"(?<=[a-zà-ÿ])-\n(?=[a-zà-ÿ])")
_HEADING = re.compile(r"(#{1,6}) +(\S.*)")


def is_docx(path: File) -> bool:
    try:
        with _whole(path) as file, zipfile.ZipFile(file) as inside:
            return "word/document.xml" in inside.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError):
        return False


def _whole(path: File) -> IO[bytes]:
    """The file, to be read from any place in it."""
    if not isinstance(path, Member):
        return path.open("rb")
    with packed.Unpacked(path) as file:
        data = file.read(MAX_DOCUMENT + 1)
    if len(data) > MAX_DOCUMENT:
        raise _too_large(path)
    return io.BytesIO(data)


def _too_large(path: File) -> StudioError:
    return refuse(f"{path.name} is larger than {MAX_DOCUMENT >> 20} MB.", "Split it into several documents.")


class Document(Reader):
    """A file of which every row is known to be text."""

    what = unit = ""

    def __init__(self, path: File):
        super().__init__(path)
        self._done = 0
        if self.size > MAX_DOCUMENT:
            raise _too_large(path)
        self.detected = Detected("text", {"text": "text"}, [f"{self.what}: its text, one row a {self.unit}."],
                                 columns=["text", "title", self.unit, "source"])

    @property
    def consumed(self) -> int:
        return self._done

    def _row(self, text: str, title: str, place: int | str) -> Row:
        return {"text": text, "title": title, self.unit: place, "source": self.path.name}


class PdfReader(Document):
    """Pages of a PDF that have text. Words divided at the end of a line are joined."""

    kind, what, unit = "pdf", "A PDF", "page"

    def _read(self) -> Iterator[Row]:
        import pypdf

        logging.getLogger("pypdf").setLevel(logging.ERROR)  # it complains of every oddity it mends
        self._done = 0
        with _whole(self.path) as file:
            try:
                pdf = pypdf.PdfReader(file)
                if pdf.is_encrypted and not pdf.decrypt(""):
                    raise refuse(f"{self.path.name} is a PDF with a password.",
                                 "Open it, print it into a new PDF without one, and bring that in.")
                title = str((pdf.metadata.title if pdf.metadata else "") or self.path.stem).strip()
                total, given = len(pdf.pages), 0
                for number in range(1, total + 1):
                    text = self._page(pdf, number)
                    self._done = self.size * number // total
                    if text:
                        given += 1
                        yield self._row(text, title, number)
                    else:
                        self._bad("no_text", f"page {number}")
            except StudioError:
                raise
            except Exception as err:  # a hostile file can raise anything in a parser of this size
                raise refuse(f"{self.path.name} is a PDF document that is broken or cut off"
                             f" ({type(err).__name__}).", "Fetch or export it again.") from err
        if not given:
            pages = f"{total:,} page{'s' * (total != 1)}"
            raise refuse(f"{self.path.name} has {pages} but no text: it is probably scanned.",
                         "Run text recognition over it first, e.g. ocrmypdf, and bring in the result.")

    def _page(self, pdf: Any, number: int) -> str:
        from pypdf.errors import LimitReachedError

        try:
            text = pdf.pages[number - 1].extract_text()
        except LimitReachedError as err:
            raise packed.bomb(self.path) from err
        text = _BROKEN_WORD.sub("", text.encode("utf-8", "replace").decode().replace("\x00", ""))
        return "\n".join(line.rstrip() for line in text.splitlines()).strip()


class DocxReader(Document):
    """Sections of a Word file: what stands under each heading; tables as lines with bars."""

    kind, what, unit = "docx", "A Word file", "section"

    def _read(self) -> Iterator[Row]:
        import mammoth

        self._done = 0
        with _whole(self.path) as file:
            try:
                with zipfile.ZipFile(file) as inside:
                    if isinstance(self.path, Member):
                        sizes = sum(info.file_size for info in inside.infolist())
                        if sizes > packed.FREE and sizes > packed.RATIO * self.size:
                            raise packed.bomb(self.path)
                    else:
                        packed.check_sizes(self.path, inside.infolist())
                    if inside.getinfo("word/document.xml").file_size > MAX_DOCUMENT:
                        raise _too_large(self.path)
                    title = _docx_title(inside)
                file.seek(0)
                made = mammoth.convert_to_html(file,
                                               convert_image=mammoth.images.img_element(lambda image: {"src": ""}))
            except StudioError:
                raise
            except Exception as err:  # the parsers of ZIP, XML and Word raise their own
                raise refuse(f"{self.path.name} is a broken Word document ({type(err).__name__}).",
                             "Open it and save it again.") from err
        text = outline(made.value)
        for section, part in sections(text):
            yield self._row(part, title or self.path.stem, section)
        self._done = self.size
        if not text:
            raise refuse(f"{self.path.name} has no text.", "Choose a document with text; pictures are not read.")


def _docx_title(inside: zipfile.ZipFile) -> str:
    try:
        core = inside.read("docProps/core.xml")[:65536].decode("utf-8", "replace")
    except KeyError:
        return ""
    import html

    found = re.search(r"<dc:title>([^<]*)</dc:title>", core)
    return html.unescape(found[1]).strip() if found else ""


class HtmlReader(Document):
    """Sections of a web page without its menus and footers (trafilatura)."""

    kind, what, unit = "html", "A web page", "section"

    def _read(self) -> Iterator[Row]:
        import trafilatura

        self._done = 0
        if self.size > MAX_PAGE:
            raise refuse(f"{self.path.name} is a web page of more than {MAX_PAGE >> 20} MB.", "Split it.")
        for name in ("trafilatura", "htmldate"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        with packed.Unpacked(self.path) as file:
            data = file.read(MAX_PAGE)
        try:
            tree = trafilatura.load_html(data)
            title = "" if tree is None else (getattr(trafilatura.extract_metadata(tree), "title", "") or "")
            text = "" if tree is None else trafilatura.extract(tree, output_format="markdown", include_comments=False,
                                                               include_tables=True, include_formatting=True) or ""
        except Exception as err:  # lxml and the readers of metadata raise their own
            raise refuse(f"{self.path.name} is a web page that cannot be read ({type(err).__name__}).",
                         "Save its text as a .txt file.") from err
        if len(text.strip()) < 40:  # nothing that looks like an article: all of the page's text
            text = outline(data.decode("utf-8", "replace"))
        for section, part in sections(text):
            yield self._row(part, title or self.path.stem, section)
        self._done = self.size
        if not text.strip():
            raise refuse(f"{self.path.name} is a web page without text.",
                         "It may be built by scripts: save the page from a browser once it is shown.")


def sections(text: str) -> Iterator[tuple[str, str]]:
    """(heading, text with its heading) of Markdown, cut at headings of the first three levels.

    A heading without text of its own stays with the section that follows.
    """
    heading, lines, body = "", [], False
    for line in text.splitlines():
        found = _HEADING.fullmatch(line.strip())
        if found and len(found[1]) <= 3:
            if body:
                yield heading, "\n".join(lines).strip()
                lines, body = [], False
            heading = found[2].strip("*# ")
            lines.append(line.strip())
            continue
        body = body or bool(line.strip())
        lines.append(line.rstrip())
    if "\n".join(lines).strip():
        yield heading, "\n".join(lines).strip()


def outline(html: str) -> str:
    """The text of HTML with its headings, lists and tables as Markdown."""
    reader = _Outline()
    reader.feed(html)
    reader.close()
    lines = (re.sub(r" {2,}", " ", line).strip() for line in "".join(reader.parts).split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


class _Outline(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._hidden = 0
        self._cells = 0

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag in ("script", "style", "noscript", "template"):
            self._hidden += 1
        elif tag in ("td", "th"):
            self.parts.append(" | " if self._cells else "")
            self._cells += 1
        elif tag in _BLOCKS and not self._cells:
            mark = "#" * int(tag[1]) + " " if tag[0] == "h" and tag[1:].isdigit() else "- " if tag == "li" else ""
            self.parts.append(("\n" if tag in ("li", "tr", "br") else "\n\n") + mark)
        elif tag in _BLOCKS:  # a paragraph inside a cell
            self.parts.append(" ")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style", "noscript", "template"):
            self._hidden = max(0, self._hidden - 1)
        elif tag == "tr":
            self._cells = 0
        elif tag[0] == "h" and tag[1:].isdigit() or tag == "table":
            self.parts.append("\n\n")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.parts.append(re.sub(r"\s+", " ", data))
