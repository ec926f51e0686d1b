"""Publish Mermaid fences as inline SVG; in preview, only point at what publishing refuses."""

from __future__ import annotations

import html
import logging
import re
from collections import Counter
from typing import Literal

from jinja2 import Environment
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

from scripts import publishing
from scripts.chromium import NoChromiumError
from scripts.diagrams import review, rule, settings
from scripts.diagrams.fence import Fence, find_fences
from scripts.diagrams.figure import figure, figure_id
from scripts.diagrams.painter import Drawing
from scripts.problem import report, stop_on
from scripts.source import Source

log = logging.getLogger("mkdocs.hooks.diagrams")

_DIV = re.compile(r'<div class="mermaid">(.*?)</div>', re.S)
_pages: list[tuple[Page, list[Fence]]] = []
_run = {"publishes": False}


def on_startup(*, command: Literal["build", "gh-deploy", "serve"], dirty: bool) -> None:
    """Decide once whether this run draws."""
    _run["publishes"] = publishing.publishes(command)
    if command == "build" and not _run["publishes"]:
        log.info(
            "Chromiumがないので、図は読む人のブラウザーで描きます。公開用はmake buildで作ります"
        )


def on_pre_build(*, config: MkDocsConfig) -> None:
    """Forget the pages of an earlier build of the same preview."""
    _pages.clear()


def on_page_content(
    content: str, /, *, page: Page, config: MkDocsConfig, files: Files
) -> str | None:
    """Note the fences of a page that has any."""
    if _DIV.search(content):
        source = Source.read(page.file)
        _pages.append((page, find_fences(source.text, source.path)))
    return None


def _place(page: Page, fences: list[Fence], drawings: dict[str, Drawing]) -> str:
    by_source = {fence.source: fence for fence in fences}
    seen: Counter[str] = Counter()

    def replace(found: re.Match[str]) -> str:
        fence = by_source[_normal(html.unescape(found[1]))]
        id_ = figure_id(fence, seen[fence.source])
        seen[fence.source] += 1
        return figure(fence, drawings[fence.source], id_)

    return _DIV.sub(replace, page.content or "")


def _normal(source: str) -> str:
    return "\n".join(line.rstrip() for line in source.split("\n")).strip("\n")


def _warn(fences: list[Fence]) -> None:
    problems = report(problem for fence in fences for problem in rule.check(fence))
    if problems:
        log.warning("公開できない図があります\n%s", problems)


def on_env(env: Environment, /, *, config: MkDocsConfig, files: Files) -> None:
    """Draw the fences of all pages in one batch, before anything is written.

    Raises:
        PluginError: when a diagram breaks a rule, or nothing is there to draw with.

    """
    fences = [fence for _, found in _pages for fence in found]
    if not _run["publishes"]:
        _warn(fences)
        return
    try:
        problems, drawings = review.review(fences, settings.of(config))
    except NoChromiumError as missing:
        raise PluginError(str(missing)) from missing
    stop_on(problems)
    for page, found in _pages:
        page.content = _place(page, found, drawings)
