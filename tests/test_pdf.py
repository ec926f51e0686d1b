"""The whole site as a PDF: its pages, numbers, links, letters and pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from lxml.html import fragment_fromstring
from mkdocs.config import load_config
from pypdf import PageObject, PdfReader

from scripts.pdf import book, searchable
from scripts.pdf.__main__ import make
from tests.workshop import ROOT

_A4 = (595, 842)  # points
_RADICALS = re.compile("[\u2e80-\u2fdf]")


# A small book of the same site: the whole has over a thousand pages and takes minutes.
_ORDER = [
    book.Leaf("", ""),
    book.Leaf("OS", "os/"),
    book.Leaf("OS", "os/process"),
    book.Leaf("データベース", "database/mvcc"),
    book.Leaf("付録", "appendix/misconceptions"),
]


@pytest.fixture(scope="module")
def pdf(tmp_path_factory: pytest.TempPathFactory) -> PdfReader:
    """Print a small book."""
    path = tmp_path_factory.mktemp("pdf") / "book.pdf"
    make(path, load_config(str(ROOT / "mkdocs.yml")), _ORDER)
    return PdfReader(path)


def _links(page: PageObject) -> Iterator[str]:
    """Yield the names of the places in the PDF that a page links to."""
    for annotation in page.get("/Annots") or ():
        target = annotation.get_object().get("/Dest")
        if target is not None:
            yield str(target)


def test_every_page_is_a4(pdf: PdfReader) -> None:
    sizes = {(round(page.mediabox.width), round(page.mediabox.height)) for page in pdf.pages}
    assert sizes == {_A4}


def _closed(text: str) -> str:
    return re.sub(r"\s", "", text)


def test_the_contents_name_the_page_on_which_a_chapter_begins(pdf: PdfReader) -> None:
    contents = _closed(pdf.pages[1].extract_text())
    for leaf in _ORDER[2:]:
        place = pdf.named_destinations[f"/{leaf.id}"]
        number = (pdf.get_destination_page_number(place) or 0) + 1
        title = _closed(str(leaf.read(ROOT / "site").xpath("string(.//h1/text())")))
        assert f"{title}{number}" in contents
        assert title in _closed(pdf.pages[number - 1].extract_text())


def test_every_link_inside_arrives(pdf: PdfReader) -> None:
    places = {name.lstrip("/") for name in pdf.named_destinations}
    named = [link.lstrip("/") for page in pdf.pages for link in _links(page)]
    assert len(named) > 2 * len(_ORDER)
    assert sorted(set(named) - places) == []


def _resources(pdf: PdfReader, kind: str) -> Iterator[Any]:
    """Yield the fonts or pictures of all pages."""
    for page in pdf.pages:
        resources: Any = page["/Resources"]
        for found in resources.get(kind, {}).values():
            yield found.get_object()


def _is_whole(font: Any) -> bool:
    """Tell whether a font carries its glyphs: as drawings (Type 3) or as a font file."""
    if font["/Subtype"] == "/Type3":
        return "/CharProcs" in font
    inner = font["/DescendantFonts"][0].get_object() if "/DescendantFonts" in font else font
    return any(key.startswith("/FontFile") for key in inner["/FontDescriptor"].get_object())


def test_every_font_is_in_the_file(pdf: PdfReader) -> None:
    fonts = list(_resources(pdf, "/Font"))
    assert fonts
    assert all(map(_is_whole, fonts))


def test_diagrams_are_lines_and_not_pixels(pdf: PdfReader) -> None:
    assert "/Image" not in {found["/Subtype"] for found in _resources(pdf, "/XObject")}


def test_letters_are_those_that_people_type(pdf: PdfReader) -> None:
    text = "".join(page.extract_text() for page in pdf.pages)
    assert "目次" in text
    assert _RADICALS.findall(text) == []


def test_a_radical_is_told_from_the_character_it_looks_like() -> None:
    assert searchable.typed("\u2f6c次\u2027\u2f47本") == "目次・日本"
    assert searchable.typed("目次ー") == "目次ー"


def test_pages_follow_the_table_of_contents_with_their_part() -> None:
    nav = [{"ホーム": "index.md"}, {"OS": ["os/index.md", {"プロセス": "os/process.md"}]}]
    found = [(leaf.part, leaf.address) for leaf in book.leaves(nav)]
    assert found == [("", ""), ("OS", "os/"), ("OS", "os/process")]


def _linked(href: str) -> str:
    leaf, other = book.Leaf("OS", "os/process"), book.Leaf("OS", "os/files")
    article = fragment_fromstring(f'<article><a href="{href}">x</a></article>')
    book.link(article, leaf, {one.address: one for one in (leaf, other)}, "https://example.com/")
    return str(article.xpath("string(.//a/@href)"))


@pytest.mark.parametrize(
    ("href", "target"),
    [
        ("../files/#links", "#p-os-files--links"),
        ("../files/", "#p-os-files"),
        ("#here", "#p-os-process--here"),
        ("../../onboarding/sre.csv", "https://example.com/onboarding/sre.csv"),
        ("https://www.rfc-editor.org/rfc/rfc9293", "https://www.rfc-editor.org/rfc/rfc9293"),
    ],
)
def test_a_link_stays_in_the_book_where_its_page_does(href: str, target: str) -> None:
    assert _linked(href) == target
