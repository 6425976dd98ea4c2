"""PDF, Word and HTML as rows of text with title and place; scanned, locked, broken and hostile ones refused."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import pytest

from studio.datasets.documents import outline, sections
from studio.datasets.formats import load_rows
from studio.datasets.inspect import inspect
from studio.datasets.readers import open_rows
from studio.errors import StudioError


def pdf(pages: list[str], title: str = "", stream: bytes | None = None, filter: str = "") -> bytes:
    """A small PDF, written by hand: one line of Helvetica a line of a page."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", "", "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
               f"<< /Title ({title}) >>"]
    kids = []
    for text in pages:
        lines = "".join(f"({line}) Tj 0 -14 Td " for line in text.split("\n")) if text else ""
        content = f"BT /F1 12 Tf 72 720 Td {lines}ET".encode() if stream is None else stream
        objects.append(f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Resources << /Font << /F1 3 0 R >> >> "
                       f"/Contents {len(objects) + 2} 0 R >>")
        kids.append(f"{len(objects)} 0 R")
        objects.append((f"<< /Length {len(content)} {filter} >>\nstream\n", content, "\nendstream"))
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>"
    out, places = b"%PDF-1.4\n", []
    for number, one in enumerate(objects, 1):
        body = one.encode() if isinstance(one, str) else one[0].encode() + one[1] + one[2].encode()
        places.append(len(out))
        out += f"{number} 0 obj\n".encode() + body + b"\nendobj\n"
    start = len(out)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    out += b"".join(f"{place:010d} 00000 n \n".encode() for place in places)
    return out + f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R /Info 4 0 R >>\nstartxref\n{start}\n%%EOF\n".encode()


W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


def docx(path: Path, body: str, title: str = "", more: dict[str, bytes] | None = None) -> Path:
    """A Word file with paragraphs written as XML."""
    types = ('<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
             '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
             '<Override PartName="/word/document.xml" ContentType="application/vnd.openxmlformats-officedocument.'
             'wordprocessingml.document.main+xml"/></Types>')
    rels = ('<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
            '<Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/'
            'officeDocument" Target="word/document.xml"/></Relationships>')
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("[Content_Types].xml", types)
        made.writestr("_rels/.rels", rels)
        made.writestr("word/document.xml",
                      f'<?xml version="1.0"?><w:document {W}><w:body>{body}</w:body></w:document>')
        if title:
            made.writestr("docProps/core.xml", f"<x xmlns:dc='d'><dc:title>{title}</dc:title></x>")
        for name, data in (more or {}).items():
            made.writestr(name, data)
    return path


def para(text: str, style: str = "") -> str:
    mark = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
    return f"<w:p>{mark}<w:r><w:t>{text}</w:t></w:r></w:p>"


HTML = """<!doctype html><html><head><title>Bees</title><script>evil()</script></head><body><nav><a href=/>Home</a></nav>
<article><h1>Bees</h1><p>Bees live in hives and make honey from the nectar of flowers, which they carry home.</p>
<h2>Food</h2><p>They eat pollen and nectar. In winter they live on the honey that was made in the summer months.</p>
<table><tr><th>Kind</th><th>Legs</th></tr><tr><td>Bee</td><td>6</td></tr></table></article>
<footer>Copyright nobody</footer></body></html>"""


def refusal(path: Path) -> str:
    with pytest.raises(StudioError) as caught:
        list(open_rows(path))
    assert caught.value.field == "dataset" and caught.value.hint
    return caught.value.message


def test_pdf_by_page(tmp_path):
    path = tmp_path / "guide.pdf"
    path.write_bytes(pdf(["A first page about gar-\ndens.", "", "The last page."], "The Guide"))
    reader = open_rows(path)
    rows = list(reader)
    assert rows == [{"text": "A first page about gardens.", "title": "The Guide", "page": 1, "source": "guide.pdf"},
                    {"text": "The last page.", "title": "The Guide", "page": 3, "source": "guide.pdf"}]
    assert reader.bad == {"no_text": 1} and reader.examples == {"no_text": ["page 2"]} and reader.kind == "pdf"
    assert list(load_rows(path)) == [{"text": row["text"]} for row in rows]
    report = inspect(path)
    assert report["format"] == "text" and report["evidence"] == ["A PDF: its text, one row a page."]
    (tmp_path / "named.txt").write_bytes(path.read_bytes())
    assert len(list(open_rows(tmp_path / "named.txt"))) == 2, "the content decides over the name"


def test_scanned_pdf(tmp_path):
    path = tmp_path / "scan.pdf"
    path.write_bytes(pdf(["", "", ""]))
    assert "3 pages but no text" in refusal(path)


def test_locked_pdf(tmp_path):
    import pypdf

    (tmp_path / "a.pdf").write_bytes(pdf(["Secret."]))
    for word, open_to_all in (("key", False), ("", True)):
        writer = pypdf.PdfWriter(clone_from=tmp_path / "a.pdf")
        writer.encrypt(word, owner_password="boss", algorithm="AES-256")
        writer.write(tmp_path / "locked.pdf")
        if open_to_all:
            assert [row["text"] for row in open_rows(tmp_path / "locked.pdf")] == ["Secret."]
        else:
            assert "with a password" in refusal(tmp_path / "locked.pdf")


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9])
def test_half_written_pdf(tmp_path, keep):
    """A cut PDF is mended by the library where it can be, and never a crash."""
    data = pdf([f"Page {i} of it." for i in range(20)])
    path = tmp_path / "cut.pdf"
    path.write_bytes(data[:int(len(data) * keep)])
    try:
        rows = list(open_rows(path))
    except StudioError as err:
        assert "broken or cut off" in err.message or "no text" in err.message
    else:
        assert all(row["text"].startswith("Page") for row in rows)


def test_pdf_that_unfolds_without_measure(tmp_path):
    path = tmp_path / "bomb.pdf"
    path.write_bytes(pdf(["x"], stream=zlib.compress(b" " * 200_000_000), filter="/Filter /FlateDecode"))
    assert "zip bomb" in refusal(path)


def test_word_by_section(tmp_path):
    table = ("<w:tbl>" + "".join("<w:tr>" + "".join(f"<w:tc>{para(c)}</w:tc>" for c in row) + "</w:tr>"
                                 for row in (("Kind", "Legs"), ("Bee", "6"))) + "</w:tbl>")
    path = docx(tmp_path / "bees.docx", para("Bees", "Heading1") + para("Bees make honey.") + para("Food", "Heading2")
                + para("They eat &lt;pollen&gt;.") + table, "All &amp; about bees")
    reader = open_rows(path)
    assert list(reader) == [
        {"text": "# Bees\n\nBees make honey.", "title": "All & about bees", "section": "Bees", "source": "bees.docx"},
        {"text": "## Food\n\nThey eat <pollen>.\n\nKind | Legs\n\nBee | 6".replace("\n\nBee |", "\nBee |"),
         "title": "All & about bees", "section": "Food", "source": "bees.docx"}]
    assert reader.kind == "docx" and list(load_rows(path))[0] == {"text": "# Bees\n\nBees make honey."}


def test_broken_empty_and_hostile_word_files(tmp_path):
    assert "no text" in refusal(docx(tmp_path / "empty.docx", para("")))
    assert "broken Word document" in refusal(docx(tmp_path / "x.docx", "<w:p><w:oops></w:p>"))
    bomb = docx(tmp_path / "bomb.docx", para("x"), more={"word/media/a.bin": b"\0" * (120 << 20)})
    assert "zip bomb" in refusal(bomb)
    laughs = ('<!DOCTYPE w:document [<!ENTITY a "' + "lol" * 1000 + '">' + "".join(
        f'<!ENTITY {new} "{f"&{old};" * 100}">' for old, new in zip("abcd", "bcde", strict=True)) + "]>")
    path = docx(tmp_path / "lol.docx", "")
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("[Content_Types].xml",
                      "<Types xmlns='http://schemas.openxmlformats.org/package/2006/content-types'/>")
        made.writestr("word/document.xml",
                      f'<?xml version="1.0"?>{laughs}<w:document {W}><w:body>{para("&e;")}</w:body>'
                      "</w:document>")
    assert "broken Word document" in refusal(path)


def test_web_page_by_section(tmp_path):
    path = tmp_path / "bees.html"
    path.write_text(HTML)
    rows = list(open_rows(path))
    assert [row["section"] for row in rows] == ["Bees", "Food"] and {row["title"] for row in rows} == {"Bees"}
    text = "\n".join(row["text"] for row in rows)
    assert "honey from the nectar" in text and "Bee" in rows[1]["text"] and "6" in rows[1]["text"]
    assert "evil" not in text and "Home" not in text and "Copyright" not in text


def test_small_and_empty_web_pages(tmp_path):
    path = tmp_path / "a.htm"
    path.write_text("<html><body><p>Only this.</p><ul><li>a<li>b</ul></body></html>")
    assert [row["text"] for row in open_rows(path)] == ["Only this.\n\n- a\n- b"]
    path.write_text("<html><body><script>build()</script></body></html>")
    assert "without text" in refusal(path)


def test_sections_keep_headings_with_their_text():
    text = "Before.\n# One\n## Two\nText.\n#### Deep\nMore.\n# Last"
    assert list(sections(text)) == [("", "Before."), ("Two", "# One\n## Two\nText.\n#### Deep\nMore."),
                                    ("Last", "# Last")]
    assert outline("<h2>A</h2>x<style>y</style> z<br>w") == "## A\n\nx z\nw"


def test_documents_of_a_folder_become_rows_with_tags(home, run_step):
    (home / "docs").mkdir()
    (home / "docs" / "a.pdf").write_bytes(pdf(["One.", "Two."], "Guide"))
    (home / "docs" / "b.html").write_text(HTML)
    (home / "docs" / "scan.pdf").write_bytes(pdf([""]))
    made = run_step("import", sources=["docs"])
    items = list(made.items())
    assert [item.source for item in items] == ["docs/a.pdf"] * 2 + ["docs/b.html"] * 2
    assert dict(items[1].tags) == {"title": "Guide", "page": "2"}
    assert {r["code"]: r["count"] for r in made.meta["history"][-1]["reasons"]} == {"unreadable": 1}
