"""Admonitions, details and tabs as plain Markdown: a bold title, then the text."""

from __future__ import annotations

import re
from collections.abc import Iterator

from scripts.diagrams.fence import code_lines

_OPENING = re.compile(
    r'^(?P<indent> *)(?:(?:!!!|\?\?\?\+?)(?: +(?P<type>[\w-]+(?: +[\w-]+)*))?|===[!+]*(?= *"))'
    r'(?: *"(?P<title>.*)")? *$'
)
_TAB = 4  # columns by which the text of a block is indented


def _end(lines: list[str], start: int, indent: int) -> int:
    """Return the index of the first line after a block's text."""
    for index in range(start, len(lines)):
        line = lines[index]
        if line.strip() and len(line) - len(line.lstrip(" ")) < indent + _TAB:
            return index
    return len(lines)


def _title(opened: re.Match[str]) -> str:
    """Return a block's title: as given, or named after its type as Markdown does."""
    return (opened["type"] or "").capitalize() if opened["title"] is None else opened["title"]


def _block(opened: re.Match[str], body: list[str]) -> Iterator[str]:
    indent, title = opened["indent"], _title(opened)
    if title:
        yield from (f"{indent}**{title}**", "")
    text = "\n".join(line[len(indent) + _TAB :] for line in body)
    for line in plain(text).split("\n") if body else ():
        yield indent + line if line else ""


def plain(markdown: str) -> str:
    """Return the Markdown with every such block opened; code stays as it is."""
    lines, code = markdown.split("\n"), code_lines(markdown)
    found: list[str] = []
    index = 0
    while index < len(lines):
        opened = None if index + 1 in code else _OPENING.match(lines[index])
        index += 1
        if not opened:
            found.append(lines[index - 1])
            continue
        end = _end(lines, index, len(opened["indent"]))
        found += _block(opened, lines[index:end])
        index = end
    return "\n".join(found)
