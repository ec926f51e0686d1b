"""The built pages as one HTML document, in the order of the table of contents."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from lxml.html import HtmlElement, document_fromstring, tostring

_BASE = "http://site.invalid/"  # stands for the site while links are resolved
_DROPPED = (
    "script",
    "link",
    "form",
    "input",
    "button",
    "nav",
    "*[contains(@class, 'headerlink')]",
    "*[contains(@class, 'md-content__button')]",
    "*[contains(@class, 'md-source-file')]",
    "*[contains(@class, 'track__board')]",
    "*[contains(@class, 'planner-fallback')]",
)
_STYLES = ("assets/stylesheets", "assets/css")
_PAGE = """<!doctype html><html lang="ja"><head><meta charset="utf-8"><title>{title}</title>
{styles}<style>{own}</style></head>
<body data-md-color-scheme="default" data-md-color-primary="custom" data-md-color-accent="custom">
<main class="md-typeset">{cover}{contents}{articles}</main></body></html>"""
_COVER = """<section class="cover">{logo}<p class="cover__title">{title}</p><p>{description}</p>
<p class="cover__date">{date}</p><p>{address}</p></section>"""


@dataclass(frozen=True)
class Leaf:
    """One page of the site; `address` is its place below the site's."""

    part: str
    address: str

    @property
    def id(self) -> str:
        """Return the id of its article in the book."""
        return "p-" + (self.address.strip("/").replace("/", "-") or "home")

    def read(self, site: Path) -> HtmlElement:
        """Return its article."""
        path = site / self.address / "index.html"
        root = document_fromstring(path.read_text(encoding="utf-8"))
        article = root.find(".//article")
        assert article is not None, f"{path} has no article"
        return article


@dataclass(frozen=True)
class Entry:
    """One line of the table of contents."""

    level: int
    id: str
    title: str


def leaves(nav: object, part: str = "") -> Iterator[Leaf]:
    """Yield the pages that a table of contents names, in order."""
    if isinstance(nav, str):
        yield Leaf(part, nav.removesuffix("index.md").removesuffix(".md"))
    elif isinstance(nav, dict):
        for title, below in nav.items():
            yield from leaves(below, title if isinstance(below, list) else part)
    elif isinstance(nav, list):
        for item in nav:
            yield from leaves(item, part)


def _clean(article: HtmlElement) -> None:
    """Drop what only a screen can use, and open what is folded."""
    for dropped in _DROPPED:
        for element in article.xpath(f".//{dropped}[not(ancestor::*[local-name()='svg'])]"):
            element.drop_tree()
    for details in article.xpath(".//details"):
        details.set("open", "")


def _demote(article: HtmlElement) -> None:
    """Make room above the page's own title for that of its part."""
    for level in (5, 4, 3, 2, 1):
        for heading in article.xpath(f".//h{level}"):
            heading.tag = f"h{level + 1}"


def _own_ids(article: HtmlElement, leaf: Leaf) -> None:
    """Make ids unique in the book; those inside a diagram are so already."""
    for element in article.xpath(".//*[@id][not(ancestor-or-self::*[local-name()='svg'])]"):
        element.set("id", f"{leaf.id}--{element.get('id')}")
    article.set("id", leaf.id)


def _inside(target: str, known: Mapping[str, Leaf]) -> str | None:
    """Return the anchor in the book of an address on the site, if it is a page's."""
    parts = urlsplit(target)
    leaf = known.get(parts.path.strip("/"))
    if not target.startswith(_BASE) or leaf is None:
        return None
    return f"#{leaf.id}--{parts.fragment}" if parts.fragment else f"#{leaf.id}"


def link(article: HtmlElement, leaf: Leaf, known: Mapping[str, Leaf], address: str) -> None:
    """Turn links to pages of the book into links inside it, others into absolute ones.

    `known` are the pages by address without slashes at its ends, `address` is the site's.
    """
    here = urljoin(_BASE, leaf.address + ("/" if leaf.address and leaf.address[-1] != "/" else ""))
    for link in article.xpath(".//a[@href]"):
        target = urljoin(here, link.get("href"))
        outside = urljoin(address, target.removeprefix(_BASE))
        link.set("href", _inside(target, known) or outside)


def _prepared(leaf: Leaf, site: Path, known: Mapping[str, Leaf], address: str) -> HtmlElement:
    article = leaf.read(site)
    _clean(article)
    _demote(article)
    link(article, leaf, known, address)
    _own_ids(article, leaf)
    return article


def _part(title: str, number: int) -> str:
    return f'<h1 class="part" id="part-{number}">{html.escape(title)}</h1>'


def articles(order: list[Leaf], site: Path, address: str) -> Iterator[tuple[list[Entry], str]]:
    """Yield each page's entries for the table of contents and its HTML."""
    known = {leaf.address.strip("/"): leaf for leaf in order}
    part = ""
    for number, leaf in enumerate(order):
        article = _prepared(leaf, site, known, address)
        title = " ".join(article.xpath("string(.//h2[1])").split())
        entries, before = [Entry(2, leaf.id, title)], ""
        if leaf.part and leaf.part != part:
            entries.insert(0, Entry(1, f"part-{number}", leaf.part))
            before = _part(leaf.part, number)
        part = leaf.part or part
        text = tostring(article, encoding="unicode", method="html")
        yield entries, before + text


def _entry(entry: Entry, pages: Mapping[str, int]) -> str:
    number = pages.get(entry.id, 0)
    text = f'<a href="#{entry.id}">{html.escape(entry.title)}</a>'
    return f'<li class="toc-{entry.level}">{text}<span></span><b>{number or "000"}</b></li>'


def contents(entries: list[Entry], pages: Mapping[str, int]) -> str:
    """Return the table of contents; pages not known yet take the room of three digits."""
    items = "".join(_entry(entry, pages) for entry in entries)
    return f'<section class="toc"><p class="toc__title">目次</p><ul>{items}</ul></section>'


@dataclass(frozen=True)
class Site:
    """The built site and what it says of itself."""

    folder: Path
    title: str
    description: str
    address: str


def _cover(site: Site) -> str:
    return _COVER.format(
        logo=(site.folder / "assets/logo.svg").read_text(encoding="utf-8"),
        title=html.escape(site.title),
        description=html.escape(site.description),
        date=f"{date.today():%Y年%-m月%-d日}",
        address=html.escape(site.address),
    )


def document(site: Site, own: str, contents: str, body: str) -> str:
    """Return the book's HTML; `own` is its style, beside the site's own."""
    sheets = [f for folder in _STYLES for f in sorted((site.folder / folder).glob("*.css"))]
    styles = "".join(f'<link rel="stylesheet" href="{f.absolute().as_uri()}">' for f in sheets)
    title = html.escape(site.title)
    return _PAGE.format(
        title=title, styles=styles, own=own, cover=_cover(site), contents=contents, articles=body
    )
