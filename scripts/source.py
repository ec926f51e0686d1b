"""A Markdown source file as an author sees it: lines with numbers, prose apart from code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from mkdocs.structure.files import File

from scripts.diagrams.fence import code_lines

_FRONT_MATTER = re.compile(r"\A---\n(.*?\n)---\n", re.S)
_HEADING = re.compile(r"^(?P<marks>#{1,6})\s+(?P<text>.+?)\s*$")
_ID = re.compile(r"\{[^}]*#(?P<id>[^\s}]+)[^}]*\}\s*$")


@dataclass(frozen=True)
class Heading:
    """An ATX heading; `id` is empty when none is written."""

    line: int
    level: int
    text: str
    id: str = field(default="")


@dataclass(frozen=True)
class Source:
    """One Markdown file; `path` is shown to people, relative to the project."""

    path: str
    text: str

    @classmethod
    def read(cls, file: File) -> Source:
        """Read the file behind a MkDocs page."""
        path = Path(file.abs_src_path or "")
        return cls(f"docs/{file.src_uri}", path.read_text(encoding="utf-8"))

    @cached_property
    def front_matter(self) -> dict[str, Any]:
        """Return the YAML at the top, or an empty mapping."""
        found = _FRONT_MATTER.match(self.text)
        return (yaml.safe_load(found[1]) or {}) if found else {}

    def line_of(self, needle: str) -> int:
        """Return the first line that contains `needle`, or 1."""
        return next((n for n, line in self.numbered() if needle in line), 1)

    def numbered(self) -> Iterator[tuple[int, str]]:
        """Yield every line with its number."""
        yield from enumerate(self.text.split("\n"), 1)

    def prose(self) -> Iterator[tuple[int, str]]:
        """Yield the lines outside front matter and fenced code."""
        found = _FRONT_MATTER.match(self.text)
        first = found[0].count("\n") if found else 0
        code = code_lines(self.text)
        for number, line in self.numbered():
            if number > first and number not in code:
                yield number, line

    def headings(self) -> Iterator[Heading]:
        """Yield the headings, in order."""
        for number, line in self.prose():
            if found := _HEADING.match(line):
                id_ = _ID.search(found["text"])
                text = _ID.sub("", found["text"]).strip()
                yield Heading(number, len(found["marks"]), text, id_["id"] if id_ else "")
