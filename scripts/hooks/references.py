"""Refuse reference links whose source is not listed in includes/."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

from scripts.problem import Problem, stop_on
from scripts.source import Source

_DEFINED = re.compile(r"^\s{0,3}\[(?P<id>[^\]^][^\]]*)\]:\s*\S", re.M)
_USED = re.compile(r"\[[^\]\[]*\]\[(?P<id>[^\]/]*)\]")  # with a slash: a fact of a lab
_CODE = re.compile(r"`[^`]*`")
_problems: list[Problem] = []
_listed: set[str] = set()


def on_pre_build(*, config: MkDocsConfig) -> None:
    """Read what includes/ lists."""
    _problems.clear()
    _listed.clear()
    folder = Path(config.docs_dir).parent / "includes"
    for path in folder.glob("*.md"):
        _listed.update(found["id"].lower() for found in _DEFINED.finditer(path.read_text("utf-8")))


def check(source: Source, listed: set[str]) -> Iterator[Problem]:
    """Yield the references of one file that neither it nor `listed` defines."""
    own = {found["id"].lower() for found in _DEFINED.finditer(source.text)}
    for number, line in source.prose():
        for used in _USED.finditer(_CODE.sub("", line)):
            if used["id"] and used["id"].lower() not in own | listed:
                yield Problem(
                    source.path,
                    number,
                    f"出典「{used['id']}」が一覧にありません",
                    f"includes/sources.mdに「[{used['id']}]: URL」を1行加えてください",
                )


def on_page_markdown(markdown: str, /, *, page: Page, config: MkDocsConfig, files: Files) -> None:
    """Check the references of one page."""
    if not page.file.generated_by:
        _problems.extend(check(Source.read(page.file), _listed))


def on_env(env: object, /, *, config: MkDocsConfig, files: Files) -> None:
    """Stop before anything is written when a source was missing."""
    stop_on(_problems)
