"""Every symptom row of the chapters, gathered by what a person sees."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scripts.chapters import Chapter, by_part
from scripts.problem import Problem

PAGE = Path("docs/appendix/symptoms.md")
_ID = re.compile(r" ?\{ ?#(?P<id>sym-[a-z0-9-]+) ?\}")
_CELL = re.compile(r"(?<!\\)\|")
_CODE = re.compile(r"`[^`]*`")
# A command, a column or a file that a sentence goes on to tell about: no message of a program.
_NAMED = re.compile(r"`(?:[^` ]+|[a-z][^`:]*)`(?:（[^）]*）)?[ぁ-ん]")
_CELLS = ("見えるもの", "最初に打つコマンド", "出力の読み方", "対処")
_CITATION = re.compile(r"〔[^〕]*〕")
_HEAD = """---
title: 症状から引く
description: 見える症状とエラーメッセージ{count}件から、最初に打つコマンドと章を引く表です。
search:
  boost: 0.1
---

<!-- 各章の「症状から調べる」から作られるページです。直すときは章を直してください。 -->

# 症状から引く {{#symptoms}}

{count}件あります。症状を選ぶと、出力の読み方と対処の載った行に移ります。
エラーメッセージは、プログラムが出すとおりに書いています。画面の文字をそのまま、このページの中で検索してください。
"""
_TABLE = """<div class="symptoms symptoms--gathered" markdown>

| 見えるもの | 最初に打つコマンド | 章 |
|---|---|---|
{rows}
</div>
"""


@dataclass(frozen=True)
class Symptom:
    """One row: what is seen and what to run first, in the chapter's Markdown."""

    chapter: Chapter
    id: str
    seen: str
    run: str

    @property
    def is_message(self) -> bool:
        """Tell whether a program's own words stand first."""
        return self.seen.startswith("`") and not _NAMED.match(self.seen)

    @property
    def row(self) -> str:
        """Return it as a row of the gathered table."""
        seen = f"[{self.seen}]({self.chapter.link(self.id)})"
        return f"| {seen} | {self.chapter.carried(self.run)} | {self.chapter.title} |\n"


def _cells(line: str) -> list[str]:
    """Return the cells of a table row; a bar in code does not part them."""
    hidden = _CODE.sub(lambda code: code[0].replace("|", "\0"), line)
    return [cell.replace("\0", "|").strip() for cell in _CELL.split(hidden)[1:-1]]


def _plain(cell: str) -> str:
    """Return a cell without ids, sources and links: it becomes a link itself."""
    text = _CITATION.sub("", _ID.sub("", cell))
    return re.sub(r"\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])", r"\1", text).strip()


def _rows(chapter: Chapter) -> Iterator[tuple[int, str, list[str]]]:
    """Yield each row that has an id: its line, the id and its cells."""
    for number, line in chapter.source.prose():
        found = _ID.search(line)
        if found and line.lstrip().startswith("|"):
            yield number, found["id"], _cells(line.strip())


def check(chapters: list[Chapter]) -> Iterator[Problem]:
    """Yield the rows that a bar parts wrongly, or that leave a cell out."""
    for chapter in chapters:
        for number, id_, cells in _rows(chapter):
            if len(cells) != len(_CELLS):
                what = f"症状「{id_}」の行にマスが{len(cells)}個あります"
                cure = f"{'・'.join(_CELLS)}の{len(_CELLS)}個にしてください(文中の|は「`」で囲む)"
                yield Problem(chapter.source.path, number, what, cure)


def read(chapter: Chapter) -> Iterator[Symptom]:
    """Yield the rows of one chapter, in its order."""
    for _, id_, (seen, run, *_rest) in _rows(chapter):
        yield Symptom(chapter, id_, _plain(seen), _CITATION.sub("", run))


def _table(rows: str) -> str:
    return _TABLE.format(rows=rows)


def _part(name: str, part: str, chapters: list[Chapter]) -> str:
    found = [symptom for chapter in chapters for symptom in read(chapter)]
    words = [symptom for symptom in found if not symptom.is_message]
    rows = "".join(symptom.row for symptom in words)
    return f"## {name}で見えること {{#{part}}}\n\n{_table(rows)}" if rows else ""


def page(chapters: list[Chapter]) -> str:
    """Return the page: messages in alphabetical order, then what is seen, by part."""
    every = [symptom for chapter in chapters for symptom in read(chapter)]
    messages = sorted((one for one in every if one.is_message), key=lambda one: one.seen.lower())
    rows = "".join(message.row for message in messages)
    parts = [_part(name, part, found) for part, name, found in by_part(chapters)]
    head = _HEAD.format(count=len(every))
    return "\n".join([head, f"## エラーメッセージ {{#messages}}\n\n{_table(rows)}", *parts])
