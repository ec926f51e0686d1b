"""A page of the table of contents as machines know it: its address and its part."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts import chapters
from scripts.chapters import Chapter
from scripts.source import Source

COPY = "index.md"
_HOME = "home"
_SUFFIX = re.compile(r"(?:(?<=/)|^)index\.md$|\.md$")
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:", re.I)


@dataclass(frozen=True)
class Part:
    """A top entry of the table of contents; `id` is its folder below docs/."""

    id: str
    title: str


@dataclass(frozen=True)
class Page:
    """One page; `uri` is its file below docs/, `site` the address of the published site."""

    uri: str
    source: Source
    part: Part
    site: str

    @property
    def title(self) -> str:
        """Return its title."""
        return str(self.source.front_matter.get("title", self.uri))

    @property
    def description(self) -> str:
        """Return its description, or an empty string."""
        return str(self.source.front_matter.get("description", ""))

    @property
    def address(self) -> str:
        """Return its absolute address."""
        return _address(self.uri, self.site)

    @property
    def copy(self) -> str:
        """Return the absolute address of its Markdown copy."""
        return self.address + COPY

    @property
    def chapter(self) -> Chapter | None:
        """Return it as a chapter, or nothing when it belongs to none of the book's parts."""
        return Chapter(self.uri, self.source) if self.part.id in chapters.PARTS else None

    def listed(self, field: str) -> list[str]:
        """Return a list of the front matter, empty where none is given."""
        return [str(item) for item in self.source.front_matter.get(field) or ()]

    def absolute(self, target: str) -> str:
        """Return where a link of this page leads, as an absolute address."""
        if _ELSEWHERE.match(target):
            return target
        path, mark, anchor = target.partition("#")
        place = posixpath.join(posixpath.dirname(self.uri), path) if path else self.uri
        return _address(posixpath.normpath(place), self.site) + mark + anchor


def _address(uri: str, site: str) -> str:
    """Return the address of a file below docs/: a page's folder, or the file itself."""
    return site + _SUFFIX.sub(lambda found: "" if found[0] == "index.md" else "/", uri)


def _parts(nav: Any) -> Iterator[tuple[str, Any]]:
    for entry in nav or ():
        yield from entry.items() if isinstance(entry, dict) else [(entry, entry)]


def read(nav: Any, site: str, docs: Path) -> list[Page]:
    """Return the pages that a table of contents names, in its order."""
    found = []
    for title, value in _parts(nav):
        for uri, source in chapters.pages(value, docs).items():
            part = Part(uri.split("/")[0] if "/" in uri else _HOME, title)
            found.append(Page(uri, source, part, site))
    return found
