"""The notes that the site grew out of: which page answers each line, and whether it was true."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from scripts.problem import Problem
from scripts.source import Source

FILE = Path("docs/appendix/notes.yml")
PAGE = Path("docs/appendix/notes-map.md")
VERDICTS = {"correct": "正しい", "imprecise": "不正確", "wrong": "誤り", "stub": "見出しだけ"}
_MENDED = {"imprecise", "wrong"}
_HEAD = """---
title: メモとの対応
description: もとになったメモの{count}行が、どのページで答えられ、正しかったかの一覧です。
search:
  exclude: true
---

<!-- docs/appendix/notes.ymlから作られるページです。直すときはそちらを直してください。 -->

# メモとの対応 {{#notes-map}}

このサイトは、1人の技術者の読書メモから育ちました。メモの空行を除く{count}行に、上からN001〜N{count}の番号を付けています。
どの行も、下の表のページで答えています。内訳は次のとおりです。

{sums}

「不正確」と「誤り」の行は、ページの「よくある誤解」で正しています。
"""


@dataclass(frozen=True)
class Note:
    """One line of the notes; `page` is the file below docs/ that answers it."""

    line: int
    number: str
    heading: str
    verdict: str
    page: str


def read(path: Path = FILE) -> list[Note]:
    """Return the lines in their order."""
    text = path.read_text(encoding="utf-8")
    places = Source(str(path), text)
    return [
        Note(places.line_of(f"{number}:"), number, group["heading"], verdict, page)
        for group in yaml.safe_load(text)
        for number, (verdict, page) in group["lines"].items()
    ]


def _misread(notes: Iterable[Note]) -> Iterator[Problem]:
    for place, note in enumerate(notes, 1):
        if note.number != f"N{place:03}":
            what = f"メモの行{note.number}がN{place:03}の場所にあります"
            cure = "番号をN001から1つずつ、抜かさずに並べてください"
            yield Problem(str(FILE), note.line, what, cure)
        if note.verdict not in VERDICTS:
            what = f"メモの行{note.number}の判定「{note.verdict}」はありません"
            cure = f"{'・'.join(VERDICTS)}から選んでください"
            yield Problem(str(FILE), note.line, what, cure)


def _unanswered(notes: Iterable[Note], answers: Mapping[str, Source]) -> Iterator[Problem]:
    for note in notes:
        page = answers.get(note.page)
        if page is None or note.number not in (page.front_matter.get("notes") or ()):
            what = f"メモの行{note.number}に答えるページ{note.page}がありません"
            cure = f"そのページで答え、前付けのnotesに{note.number}を書いてください"
            yield Problem(str(FILE), note.line, what, cure)


def _unasked(notes: Iterable[Note], answers: Mapping[str, Source]) -> Iterator[Problem]:
    places = {note.number: note.page for note in notes}
    for page, source in answers.items():
        for number in source.front_matter.get("notes") or ():
            if places.get(number) != page:
                expected = f"{places[number]}で答える決まり" if number in places else "ない番号"
                what = f"メモの行{number}は、{FILE}では{expected}です"
                cure = f"notesから除くか、{FILE}を直してください"
                yield Problem(source.path, source.line_of("notes:"), what, cure)


def check(notes: list[Note], answers: Mapping[str, Source]) -> Iterator[Problem]:
    """Yield lines out of order, those that no page answers, and answers that nobody asked for.

    `answers` are the pages by their file below docs/.
    """
    yield from _misread(notes)
    yield from _unanswered(notes, answers)
    yield from _unasked(notes, answers)


def _row(note: Note, answer: Source) -> str:
    corrects = any(heading.id == "misconceptions" for heading in answer.headings())
    anchor = "#misconceptions" if corrects and note.verdict in _MENDED else ""
    link = f"[{answer.front_matter['title']}](../{note.page}{anchor})"
    return f"| {note.number} | {note.heading} | {link} | {VERDICTS[note.verdict]} |\n"


def page(notes: list[Note], answers: Mapping[str, Source]) -> str:
    """Return the page; `answers` are the pages by their file below docs/."""
    counted = Counter(note.verdict for note in notes)
    sums = "\n".join(f"- {name}: {counted[verdict]}行" for verdict, name in VERDICTS.items())
    head = _HEAD.format(count=len(notes), sums=sums)
    table = "| 番号 | メモの見出し | 答えるページ | 判定 |\n|---|---|---|---|\n"
    rows = "".join(_row(note, answers[note.page]) for note in notes)
    return f"{head}\n## 一覧 {{#list}}\n\n{table}{rows}"
