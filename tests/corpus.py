"""A large body of other people's Japanese technical prose, to search beside the site's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lxml import html

FOLDER = Path("/usr/share/debian-reference")  # Debian's package debian-reference-ja
_HEADING = ".//*[self::h1 or self::h2 or self::h3 or self::h4 or self::h5][1]"


def _own_text(section: html.HtmlElement) -> str:
    """Return the text of a section without that of the sections inside it."""
    for inner in section.findall(".//div[@class='section']"):
        inner.drop_tree()
    return " ".join(section.text_content().split())


def _chapter(path: Path) -> Iterator[dict[str, str]]:
    page = html.fromstring(path.read_bytes())
    place = f"debian/{path.name.split('.')[0]}/"
    title = " ".join(str(page.xpath("string(//title)")).split())
    # the innermost come last, and give their text before those around them
    sections = [div for div in page.iter("div") if div.get("class") == "section"][::-1]
    texts = [(section, section.xpath(f"string({_HEADING})")) for section in sections]
    docs = [
        {
            "location": f"{place}#s{number}",
            "title": " ".join(str(heading).split()),
            "text": _own_text(section),
        }
        for number, (section, heading) in enumerate(texts)
    ]
    yield {"location": place, "title": title, "text": ""}
    yield from reversed(docs)


def documents() -> list[dict[str, str]]:
    """Return the sections as MkDocs' search index has them, a page before its sections."""
    return [doc for path in sorted(FOLDER.glob("ch*.ja.html")) for doc in _chapter(path)]
