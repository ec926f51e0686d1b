"""Every claim that a chapter corrects, gathered on one page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scripts.chapters import Chapter, by_part
from scripts.source import Heading

PAGE = Path("docs/appendix/misconceptions.md")
_SENTENCE = re.compile(r"[^。]*。(?:[）」])?")
_TELLING = 24  # characters that say more than "it is the other way round"
_LATIN_BREAK = re.compile(r"(?<=[!-~])\n(?=[!-~])")
_CITATION = re.compile(r"〔[^〕]*〕")
_HEAD = """---
title: よくある誤解
description: 各章で正した{count}の誤解と、正しい説明の最初の一文です。根拠は各章にあります。
search:
  boost: 0.1
---

<!-- 各章の「よくある誤解」から作られるページです。直すときは章を直してください。 -->

# よくある誤解 {{#misconceptions}}

{count}の誤解を集めました。誤解の文を選ぶと、章の説明と根拠に移ります。
"""


@dataclass(frozen=True)
class Misconception:
    """A claim as people make it, and the first sentence of its correction."""

    chapter: Chapter
    id: str
    claim: str
    truth: str

    @property
    def item(self) -> str:
        """Return it as an item of a list."""
        claim = self.claim.removeprefix("「").removesuffix("」")
        return (
            f"- [{claim}]({self.chapter.link(self.id)})  \n  {self.chapter.carried(self.truth)}\n"
        )


def _truth(chapter: Chapter, heading: Heading) -> str:
    """Return the first sentence of a correction, and the next where that one is too short."""
    lines = [line.strip() for _, line in chapter.below(heading) if line.startswith("    ")]
    told = "\n".join(line for line in lines if not line.startswith(("|", "-", "1.")))
    text = _LATIN_BREAK.sub(" ", told).replace("\n", "")
    truth = ""
    for sentence in _SENTENCE.findall(_CITATION.sub("", text)):
        truth += sentence
        if len(truth) >= _TELLING:
            break
    return truth or text


def read(chapter: Chapter) -> Iterator[Misconception]:
    """Yield what one chapter corrects, in its order."""
    for heading in chapter.headings:
        if heading.id.startswith("myth-"):
            yield Misconception(chapter, heading.id, heading.text, _truth(chapter, heading))


def _section(chapter: Chapter) -> str:
    items = "\n".join(found.item for found in read(chapter))
    id_ = chapter.uri.removesuffix(".md").replace("/", "-")
    return f"### {chapter.title} {{#{id_}}}\n\n{items}" if items else ""


def page(chapters: list[Chapter]) -> str:
    """Return the page."""
    count = sum(1 for chapter in chapters for _ in read(chapter))
    parts = [
        "\n".join([f"## {name} {{#{part}}}\n", *filter(None, map(_section, found))])
        for part, name, found in by_part(chapters)
    ]
    return "\n".join([_HEAD.format(count=count), *parts])
