"""The link contract: permalinks.txt lists every published URL and anchor, and none is lost."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from lxml import html

from scripts.problem import Problem

FILE = Path("permalinks.txt")
_ANCHOR = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
# The theme's own ids inside an article are no promise to anyone.
_OURS = "//article//*[@id and not(ancestor-or-self::figure[@class='diagram'])]/@id"
_REFRESHES = "//meta[translate(@http-equiv, 'R', 'r')='refresh']/@content"
_REFRESH = re.compile(r"url=[\"']?([^\"']+)", re.I)


@dataclass
class Site:
    """What a built site offers: anchors by page URL, and where redirects lead."""

    anchors: dict[str, set[str]] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)

    def links(self) -> set[str]:
        """Return every URL and every URL with an anchor, redirects left out."""
        anchored = {f"{url}#{a}" for url, anchors in self.anchors.items() for a in anchors}
        return anchored | set(self.anchors)

    def carries(self, link: str) -> bool:
        """Return whether a link still leads to what it promised."""
        url, _, anchor = link.partition("#")
        url = self.redirects.get(url, url)
        return url in self.anchors and (not anchor or anchor in self.anchors[url])


def _anchors(page: html.HtmlElement) -> set[str]:
    return {id_ for id_ in _strings(page, _OURS) if _ANCHOR.fullmatch(id_)}


def _strings(page: html.HtmlElement, xpath: str) -> list[str]:
    found = page.xpath(xpath)
    return [str(item) for item in found] if isinstance(found, list) else []


def read_site(folder: Path) -> Site:
    """Read a built site: MkDocs' or Zensical's, one folder with an index.html a page."""
    site = Site()
    for path in sorted(folder.rglob("index.html")):
        parent = path.parent.relative_to(folder).as_posix()
        url = "/" if parent == "." else f"/{parent}/"
        page = html.fromstring(path.read_bytes())
        target = _REFRESH.search("".join(_strings(page, _REFRESHES)))
        if target:
            site.redirects[url] = urlsplit(urljoin(f"http://site{url}", target[1])).path
        else:
            site.anchors[url] = _anchors(page)
    return site


def read_list(path: Path = FILE) -> list[str]:
    """Return the listed links in the order of the file."""
    return path.read_text(encoding="utf-8").split() if path.is_file() else []


def lost(site: Site, listed: list[str], path: Path = FILE) -> Iterator[Problem]:
    """Yield listed links that the site no longer offers."""
    for number, link in enumerate(listed, 1):
        if not site.carries(link):
            kind = (
                '「<span id="旧id"></span>」を新しい場所に'
                if "#" in link
                else "redirect_mapsに行き先を"
            )
            cure = f"元に戻すか、{kind}書いてください"
            yield Problem(str(path), number, f"公開済みのリンク {link} が失われます", cure)


def unlisted(site: Site, listed: list[str], path: Path = FILE) -> Iterator[Problem]:
    """Yield links that the site offers but the list does not have yet."""
    for link in sorted(site.links() - set(listed)):
        cure = "「make permalinks」で加えてください"
        yield Problem(str(path), len(listed) + 1, f"新しいリンク {link} が一覧にありません", cure)


def record(site: Site, path: Path = FILE) -> None:
    """Add the site's links to the list; nothing is ever taken out."""
    links = sorted({*read_list(path), *site.links()})
    path.write_text("\n".join(links) + "\n", encoding="utf-8")
