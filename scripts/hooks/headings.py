"""Refuse headings without an English id, ids that stand twice, and ids Markdown does not take."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

from scripts.problem import Problem, stop_on
from scripts.source import Heading, Source

_ENGLISH = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
_LEFT_OVER = re.compile(r"\{ ?#[^\s{}]+ ?\}")
_CODE = re.compile(r"<(code|pre)\b.*?</\1>", re.DOTALL)
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


def left_over(source: Source, html: str) -> Iterator[Problem]:
    """Yield ids that a reader would see as text instead of an anchor."""
    for text in _LEFT_OVER.findall(_CODE.sub("", html)):
        cure = "`…`か[…]( )のすぐ後ろ、または空白を1つ置いて表のマスの終わりに書いてください"
        yield Problem(source.path, source.line_of(text), f"id「{text}」が効いていません", cure)


def on_page_markdown(markdown: str, /, *, page: Page, config: MkDocsConfig, files: Files) -> None:
    """Check the headings of one page."""
    if not page.file.generated_by:
        _problems.extend(check(Source.read(page.file)))


def on_page_content(content: str, /, *, page: Page, config: MkDocsConfig, files: Files) -> None:
    """Check that every id was taken."""
    if not page.file.generated_by:
        _problems.extend(left_over(Source.read(page.file), content))


def on_env(env: object, /, *, config: MkDocsConfig, files: Files) -> None:
    """Stop before anything is written when a heading was wrong."""
    stop_on(_problems)
