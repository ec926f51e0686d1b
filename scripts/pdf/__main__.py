"""Print the built site into dist/infra-notes.pdf."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from mkdocs.config import load_config
from mkdocs.config.defaults import MkDocsConfig
from pypdf import PdfReader

from scripts import chromium
from scripts.pdf import book, searchable
from scripts.setup import ROOT

PDF = Path("dist/infra-notes.pdf")
_SITE = ROOT / "site"
_STYLE = Path(__file__).with_name("book.css")


def _pages(path: Path) -> dict[str, int]:
    """Return the page number of every place that a link in the PDF leads to."""
    reader = PdfReader(path)
    places = reader.named_destinations.items()
    numbers = {name: reader.get_destination_page_number(place) for name, place in places}
    return {name.lstrip("/"): (number or 0) + 1 for name, number in numbers.items()}


def _site(config: MkDocsConfig) -> book.Site:
    description = config.site_description or ""
    return book.Site(_SITE, config.site_name, description, config.site_url or "")


def make(path: Path, config: MkDocsConfig, order: list[book.Leaf]) -> None:
    """Print pages twice: first to learn their numbers, then with them.

    Raises:
        NoChromiumError: when there is no Chromium, or it prints nothing.

    """
    site, own = _site(config), _STYLE.read_text(encoding="utf-8")
    found = list(book.articles(order, _SITE, site.address))
    entries = [entry for some, _ in found for entry in some]
    body = "".join(text for _, text in found)
    numbers: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "book.html"
        for _ in range(2):
            contents = book.contents(entries, numbers)
            page.write_text(book.document(site, own, contents, body), encoding="utf-8")
            chromium.print_pdf(page, path)
            numbers = _pages(path)
    searchable.mend(path)


def main() -> int:
    """Print the book and say how large it is."""
    PDF.parent.mkdir(exist_ok=True)
    config = load_config("mkdocs.yml")
    make(PDF, config, list(book.leaves(config.nav)))
    size = PDF.stat().st_size / 1024 / 1024
    print(f"{PDF} を作りました({len(PdfReader(PDF).pages)}ページ、{size:.1f} MiB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
