"""Mermaid fences of a Markdown file, with the lines they stand on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_OPEN = re.compile(r"^(?P<indent>[ \t>]*)(?P<mark>`{3,}|~{3,})[ \t]*(?P<info>[^`]*)$")
_LABEL = r"^\s*(?:%%\s*)?{name}\s*(?::\s*(?P<line>.+)|\{{(?P<block>[^}}]*)\}})"


@dataclass(frozen=True)
class Fence:
    """One fence: `line` is that of its opening mark, `source` is dedented."""

    path: str
    line: int
    source: str

    @property
    def title(self) -> str:
        """Return accTitle, or an empty string."""
        return self._label("accTitle")

    @property
    def description(self) -> str:
        """Return accDescr on one line, or an empty string."""
        return self._label("accDescr")

    def _label(self, name: str) -> str:
        found = re.search(_LABEL.format(name=name), self.source, re.M)
        if not found:
            return ""
        return "".join((found["line"] or found["block"]).split("\n")).strip()

    def line_of(self, offset: int) -> int:
        """Return the Markdown line of the diagram's line `offset`, counted from 0."""
        return self.line + 1 + offset


def _closes(line: str, mark: str) -> bool:
    text = line.strip(" \t>")
    return len(text) >= len(mark) and set(text) == {mark[0]}


def _blocks(lines: list[str]) -> Iterator[tuple[int, str, str, list[str]]]:
    """Yield (index, indent, info, body) of each outermost fence."""
    index = 0
    while index < len(lines):
        opened = _OPEN.match(lines[index])
        start = index
        index += 1
        if not opened:
            continue
        while index < len(lines) and not _closes(lines[index], opened["mark"]):
            index += 1
        body = lines[start + 1 : index]
        index += 1
        yield start, opened["indent"], opened["info"].strip(), body


def _dedent(body: list[str], indent: str) -> str:
    return "\n".join(line[len(indent) :].rstrip() for line in body).strip("\n")


def find_fences(markdown: str, path: str) -> list[Fence]:
    """Return the Mermaid fences of a Markdown text, in order."""
    return [
        Fence(path, start + 1, _dedent(body, indent))
        for start, indent, info, body in _blocks(markdown.split("\n"))
        if info == "mermaid"
    ]


def code_lines(markdown: str) -> set[int]:
    """Return the numbers of all lines that belong to fenced code, marks included."""
    blocks = _blocks(markdown.split("\n"))
    return {n for start, _, _, body in blocks for n in range(start + 1, start + len(body) + 3)}
