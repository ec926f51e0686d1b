"""Every command of the chapters by task, with the sections that use it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from scripts.chapters import Chapter
from scripts.problem import Problem
from scripts.source import Source

FILE = Path("docs/appendix/commands.yml")
PAGE = Path("docs/appendix/commands.md")
_TOLD = 2  # the package and what it does
SHOWN = 8  # chapters named for a command; one that stands everywhere needs no list
_SPAN = re.compile(r"(?<!`)`(?P<code>[^`\n]+)`(?!`)")
_PROMPT = re.compile(r"^\s*[$#] (?P<code>.+)")
_FENCE = re.compile(r"^ *```console.*?\n(?P<body>.*?)^ *```", re.M | re.S)
_FIRST = re.compile(r"(?:sudo )?(?:[A-Z_]+=\S+ )*(?P<name>[A-Za-z][\w.-]*)(?=[ \n]|$)")
_BUILT_IN = {"cd", "exit", "export"}
_HEAD = """---
title: コマンドの一覧
description: 章に出てくるコマンド{count}個を目的ごとに並べ、説明している節へのリンクを付けました。
search:
  boost: 0.05
---

<!-- docs/appendix/commands.ymlと章から作られるページです。直すときはそちらを直してください。 -->

# コマンドの一覧 {{#commands}}

章に出てくるコマンドを、目的ごとに{count}個並べました。「出てくる節」は、その章で最初に出てくるところです。
パッケージ名はDebian 12のものです。
"""
_TABLE = "| コマンド | すること | パッケージ | 出てくる節 |\n|---|---|---|---|\n"


@dataclass(frozen=True)
class Use:
    """A command that stands in a chapter, and the section it stands in."""

    name: str
    chapter: Chapter
    line: int
    section: str
    anchor: str


def _name(code: str) -> str:
    found = _FIRST.match(code.strip())
    return found["name"] if found else ""


def _examples(chapter: Chapter) -> Iterator[tuple[int, str]]:
    """Yield the commands after a prompt in examples, with their lines."""
    for fence in _FENCE.finditer(chapter.source.text):
        first = chapter.source.text.count("\n", 0, fence.start("body")) + 1
        for number, line in enumerate(fence["body"].split("\n"), first):
            if found := _PROMPT.match(line):
                yield number, _name(found["code"])


def _spans(chapter: Chapter) -> Iterator[tuple[int, str]]:
    for number, line in chapter.source.prose():
        for found in _SPAN.finditer(line):
            yield number, _name(found["code"])


def uses(chapter: Chapter, known: set[str]) -> Iterator[Use]:
    """Yield where a chapter uses each known command first."""
    seen: set[str] = set()
    for number, name in sorted([*_examples(chapter), *_spans(chapter)]):
        if name in known - seen:
            seen.add(name)
            above = [heading for heading in chapter.headings if heading.line < number]
            if above:
                yield Use(name, chapter, number, above[-1].text, above[-1].id)


def _known(path: Path) -> dict[str, None]:
    groups = yaml.safe_load(path.read_text(encoding="utf-8"))
    return dict.fromkeys(name for group in groups for name in group["commands"])


def _incomplete(path: Path) -> Iterator[Problem]:
    listed = Source(str(path), path.read_text(encoding="utf-8"))
    for group in yaml.safe_load(listed.text):
        for name, told in group["commands"].items():
            if not isinstance(told, list) or len(told) != _TOLD:
                cure = f"「{name}: [パッケージ, すること]」と書いてください(文の中は「、」)"
                line = listed.line_of(f" {name}:")
                yield Problem(str(path), line, f"コマンド「{name}」の説明が読めません", cure)


def check(chapters: list[Chapter], path: Path = FILE) -> Iterator[Problem]:
    """Yield entries of the list that say too little, and commands of examples that it lacks."""
    yield from _incomplete(path)
    known = {*_known(path), *_BUILT_IN}
    for chapter in chapters:
        for number, name in _examples(chapter):
            if name and name not in known:
                cure = f"{path}の目的の下に「{name}: [パッケージ, すること]」を加えてください"
                yield Problem(
                    chapter.source.path, number, f"コマンド「{name}」が一覧にありません", cure
                )


def _where(found: list[Use]) -> str:
    if len(found) > SHOWN:
        return f"{len(found)}の章"
    return "、".join(f"[{use.chapter.title}]({use.chapter.link(use.anchor)})" for use in found)


def page(chapters: list[Chapter], path: Path = FILE) -> str:
    """Return the page."""
    known = _known(path)
    found = [use for chapter in chapters for use in uses(chapter, set(known))]
    used = {use.name for use in found}
    parts = [_HEAD.format(count=len(used))]
    for group in yaml.safe_load(path.read_text(encoding="utf-8")):
        rows = [
            f"| `{name}` | {does} | {package} | {_where([u for u in found if u.name == name])} |\n"
            for name, (package, does) in group["commands"].items()
            if name in used
        ]
        if rows:
            parts.append(f"## {group['task']} {{#{group['id']}}}\n\n{_TABLE}{''.join(rows)}")
    return "\n".join(parts)
