"""Refuse headings without an explicit English id, and ids that stand twice on a page."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

from scripts.problem import Problem, stop_on
from scripts.source import Heading, Source

_ENGLISH = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
_problems: list[Problem] = []


def on_pre_build(*, config: MkDocsConfig) -> None:
    """Start with no problems."""
    _problems.clear()


def _unnamed(path: str, heading: Heading) -> Iterator[Problem]:
    if not _ENGLISH.fullmatch(heading.id):
        yield Problem(
            path,
            heading.line,
            f"見出し「{heading.text}」に英語のidがありません",
            "行末に「{#english-id}」を書いてください(小文字の英数字とハイフン)",
        )


def check(source: Source) -> Iterator[Problem]:
    """Yield what is wrong with the headings of one file."""
    lines: dict[str, int] = {}
    for heading in source.headings():
        yield from _unnamed(source.path, heading)
        first = lines.setdefault(heading.id, heading.line)
        if heading.id and first != heading.line:
            yield Problem(
                source.path,
                heading.line,
                f"id「{heading.id}」は{first}行目でも使われています",
                "ページの中で一度だけ使うidに変えてください",
            )


def on_page_markdown(markdown: str, /, *, page: Page, config: MkDocsConfig, files: Files) -> None:
    """Check the headings of one page."""
    if not page.file.generated_by:
        _problems.extend(check(Source.read(page.file)))


def on_env(env: object, /, *, config: MkDocsConfig, files: Files) -> None:
    """Stop before anything is written when a heading was wrong."""
    stop_on(_problems)
