"""The chapters in the order of the table of contents, and what stands in them to be gathered."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from scripts.source import Heading, Source

PARTS = {
    "protocols": "プロトコル",
    "os": "OS",
    "network": "ネットワーク",
    "database": "データベース",
}
_LINK = re.compile(r"`[^`]*`|\]\((?P<target>[^)\s]+)\)")  # what looks like one in code is none
_ELSEWHERE = re.compile(r"[a-z]+:")


@dataclass(frozen=True)
class Chapter:
    """One page of a part; `uri` is its file below docs/."""

    uri: str
    source: Source

    @property
    def part(self) -> str:
        """Return the folder it stands in."""
        return self.uri.split("/")[0]

    @property
    def title(self) -> str:
        """Return its title."""
        return str(self.source.front_matter.get("title", self.uri))

    @property
    def notes(self) -> list[str]:
        """Return the numbers of the note lines it answers."""
        return list(self.source.front_matter.get("notes") or ())

    @cached_property
    def headings(self) -> list[Heading]:
        """Return its headings, in order."""
        return list(self.source.headings())

    def below(self, heading: Heading) -> Iterator[tuple[int, str]]:
        """Yield the prose between a heading and the next, with line numbers."""
        after = [other.line for other in self.headings if other.line > heading.line]
        end = after[0] if after else None
        for number, line in self.source.prose():
            if number > heading.line and (end is None or number < end):
                yield number, line

    def link(self, anchor: str = "") -> str:
        """Return the link from a page of the appendix."""
        return f"../{self.uri}" + (f"#{anchor}" if anchor else "")

    def carried(self, markdown: str) -> str:
        """Return a piece of its Markdown as it reads in a page of the appendix."""

        def resolved(found: re.Match[str]) -> str:
            target = found["target"]
            if not target or _ELSEWHERE.match(target):
                return found[0]
            path, mark, anchor = target.partition("#")
            place = posixpath.join(posixpath.dirname(self.uri), path) if path else self.uri
            return f"](../{posixpath.normpath(place)}{mark}{anchor})"

        return _LINK.sub(resolved, markdown)


def files(nav: Any) -> Iterator[str]:
    """Yield the files that a table of contents names, in order."""
    if isinstance(nav, str):
        yield nav
    for value in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from files(value)


def pages(nav: Any, docs: Path = Path("docs")) -> dict[str, Source]:
    """Return the pages that a table of contents names and that stand there, by file below docs/."""
    standing = [uri for uri in files(nav) if (docs / uri).is_file()]
    texts = {uri: (docs / uri).read_text(encoding="utf-8") for uri in standing}
    return {uri: Source(f"docs/{uri}", text) for uri, text in texts.items()}


def read(nav: Any, docs: Path = Path("docs")) -> list[Chapter]:
    """Return those of the pages that belong to a part."""
    found = pages(nav, docs).items()
    return [Chapter(uri, source) for uri, source in found if uri.split("/")[0] in PARTS]


def citing(nav: Any, docs: Path = Path("docs")) -> list[Chapter]:
    """Return every page that people wrote: the appendix is made from the others."""
    found = pages(nav, docs).items()
    return [Chapter(uri, source) for uri, source in found if not uri.startswith("appendix/")]


def by_part(chapters: list[Chapter]) -> Iterator[tuple[str, str, list[Chapter]]]:
    """Yield each part that has chapters: its id, its name and them."""
    for part, name in PARTS.items():
        found = [chapter for chapter in chapters if chapter.part == part]
        if found:
            yield part, name, found
