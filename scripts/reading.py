"""How long a chapter or a section takes to read, from what stands in it."""

from __future__ import annotations

import re
from math import ceil
from pathlib import Path

from scripts.chapters import Chapter
from scripts.diagrams.fence import code_lines, find_fences
from scripts.source import Heading

# What the site tells its readers that it assumes: a slow, first reading.
LETTERS = 500  # Japanese letters a minute
WORDS = 150  # words and commands in Latin letters a minute
DIAGRAMS = 2  # a minute
CODE = 30  # lines of code or of a transcript a minute
_ASIDES = {"questions", "sources"}  # a question is answered, a source looked up: not read

_LETTER = re.compile(r"[ぁ-ゖァ-ヺー一-鿿々]")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./:=+-]*")
_HIDDEN = re.compile(r"\]\([^)]*\)|\]\[[^\]]*\]|\{[^}]*\}|<[^>]*>")
_SNIPPET = re.compile(r'^\s*--8<-- "(?P<file>[^":]+)(?::(?P<section>[^"]+))?"')


def _transcript(line: str) -> int:
    """Return how many lines a snippet brings into the page."""
    found = _SNIPPET.match(line)
    path = Path("labs") / found["file"] if found else None
    if not found or not path or not path.is_file():
        return 0
    text = path.read_text(encoding="utf-8")
    name = re.escape(found["section"] or "")
    part = re.search(rf"\[start:{name}\](.*?)\[end:{name}\]", text, re.S) if name else None
    return (part[1] if part else text).count("\n")


def _prose(lines: dict[int, str]) -> float:
    text = _HIDDEN.sub(" ", "\n".join(line for line in lines.values() if "--8<--" not in line))
    transcripts = sum(map(_transcript, lines.values()))
    letters, words = len(_LETTER.findall(text)), len(_WORD.findall(text))
    return letters / LETTERS + words / WORDS + transcripts / CODE


def _code(chapter: Chapter, lines: set[int]) -> float:
    fences = [f for f in find_fences(chapter.source.text, "") if f.line in lines]
    drawn = sum(fence.source.count("\n") + 3 for fence in fences)
    code = len(code_lines(chapter.source.text) & lines)
    return len(fences) / DIAGRAMS + max(0, code - drawn) / CODE


def _end(chapter: Chapter, heading: Heading) -> int:
    """Return the line on which a heading's section ends."""
    later = [other for other in chapter.headings if other.line > heading.line]
    ends = [other.line for other in later if other.level <= heading.level]
    return min(ends, default=chapter.source.text.count("\n") + 2)


def _span(chapter: Chapter, anchor: str) -> set[int]:
    if anchor:
        heading = next(found for found in chapter.headings if found.id == anchor)
        return set(range(heading.line, _end(chapter, heading)))
    aside = [found for found in chapter.headings if found.id in _ASIDES]
    left_out = {line for found in aside for line in range(found.line, _end(chapter, found))}
    return set(range(1, chapter.source.text.count("\n") + 2)) - left_out


def minutes(chapter: Chapter, anchor: str = "") -> int:
    """Return the whole minutes that a section takes, or the chapter without its asides."""
    span = _span(chapter, anchor)
    prose = {number: line for number, line in chapter.source.prose() if number in span}
    return ceil(_prose(prose) + _code(chapter, span))
