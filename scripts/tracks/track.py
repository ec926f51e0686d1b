"""A track as its file gives it: weeks of sections to read, labs to run, questions to answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Any

from scripts import placed, reading
from scripts.chapters import Chapter
from scripts.lab_pages import Record
from scripts.problem import Problem

FILE = Path("docs/onboarding/tracks.yml")
ANSWER = 3  # minutes to answer a question aloud, and to look the answer up
_QUESTION = re.compile(r'^\?\?\? question "問(?P<number>\d+)\. (?P<text>.*)"$', re.M)


@dataclass(frozen=True)
class Step:
    """One thing to do; `name` is what the file calls it, `target` a file with an anchor or not."""

    kind: str
    name: str
    target: str
    text: str
    minutes: int


@dataclass(frozen=True)
class Week:
    """Steps that a reader takes in one week."""

    title: str
    steps: tuple[Step, ...]

    @property
    def minutes(self) -> int:
        """Return the minutes of all its steps."""
        return sum(step.minutes for step in self.steps)


@dataclass(frozen=True)
class Track:
    """One track; `id` is its page below /onboarding/."""

    id: str
    title: str
    summary: str
    weeks: tuple[Week, ...]

    @property
    def steps(self) -> list[Step]:
        """Return the steps of all weeks."""
        return [step for week in self.weeks for step in week.steps]

    @property
    def minutes(self) -> int:
        """Return the minutes of all weeks."""
        return sum(week.minutes for week in self.weeks)


@dataclass
class Shelf:
    """What a track may name: chapters by file, labs by id; and what it named in vain."""

    chapters: Mapping[str, Chapter]
    labs: Mapping[str, Record]
    problems: list[Problem] = field(default_factory=list)

    def miss(self, at: placed.Placed, what: str, cure: str) -> None:
        """Note a name that stands for nothing."""
        self.problems.append(Problem(str(FILE), at.line, what, cure))

    def section(self, at: placed.Placed) -> tuple[Chapter, str] | None:
        """Return the chapter and anchor of `os/process.md#pid`, or note that there is none."""
        uri, _, anchor = at.partition("#")
        chapter = self.chapters.get(uri)
        if chapter and (not anchor or any(h.id == anchor for h in chapter.headings)):
            return chapter, anchor
        self.miss(at, f"節「{at}」がありません", "章のファイル名と見出しのidを直してください")
        return None


def _read(at: placed.Placed, shelf: Shelf) -> Step | None:
    found = shelf.section(at)
    if not found:
        return None
    chapter, anchor = found
    names = [h.text for h in chapter.headings if anchor and h.id == anchor]
    text = " › ".join([chapter.title, *names])
    return Step("read", str(at), str(at), text, reading.minutes(chapter, anchor))


def _lab(at: placed.Placed, shelf: Shelf) -> Step | None:
    record = shelf.labs.get(at)
    if not record:
        shelf.miss(at, f"実験「{at}」の記録がありません", "labs/にある実験の名前に直してください")
        return None
    lines = record.module.with_name(f"{at}.md").read_text(encoding="utf-8").count("\n")
    minutes = ceil(lines / reading.CODE + record.content["environment"]["seconds"] / 60)
    return Step("lab", str(at), f"labs/index.md#{at}", str(record.content["title"]), minutes)


def _answer(at: placed.Placed, shelf: Shelf) -> Step | None:
    uri, _, number = at.partition(" ")
    chapter = shelf.chapters.get(uri)
    asked = dict(_QUESTION.findall(chapter.source.text)) if chapter else {}
    if number not in asked:
        shelf.miss(
            at,
            f"確認問題「{at}」がありません",
            "「os/process.md 2」のように、章と番号を書いてください",
        )
        return None
    return Step("answer", str(at), f"{uri}#questions", asked[number], ANSWER)


_KINDS: dict[str, Callable[[placed.Placed, Shelf], Step | None]] = {
    "read": _read,
    "run": _lab,
    "answer": _answer,
}


def _steps(week: Mapping[str, Any], shelf: Shelf) -> Iterator[Step]:
    for kind, step in _KINDS.items():
        for at in week.get(kind) or ():
            if found := step(at, shelf):
                yield found


def _track(id_: str, content: Mapping[str, Any], shelf: Shelf) -> Track:
    weeks = (Week(str(week["title"]), tuple(_steps(week, shelf))) for week in content["weeks"])
    return Track(id_, str(content["title"]), str(content["summary"]), tuple(weeks))


def read(shelf: Shelf, path: Path = FILE) -> list[Track]:
    """Return the tracks; what they name in vain is noted on the shelf."""
    return [_track(id_, content, shelf) for id_, content in placed.read(path).items()]
