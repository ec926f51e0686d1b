"""Make the glossary's page, and explain its terms where a page first uses them."""

from __future__ import annotations

import html
import re
from typing import Literal

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

from scripts import glossary
from scripts.problem import stop_on
from scripts.source import Source

_TAG = re.compile(r"(<[^>]+>)")
_NAME = re.compile(r"<(/?)([a-z0-9]+)")
# Where a tooltip would be in the way, or would break what stands there.
_CLOSED = {"a", "abbr", "code", "pre", "h1", "h2", "h3", "h4", "script", "style", "summary", "svg"}
_PAGE = "appendix/glossary.md"
_terms: dict[str, glossary.Term] = {}
_pattern: list[re.Pattern[str]] = []


def on_startup(*, command: Literal["build", "gh-deploy", "serve"], dirty: bool) -> None:
    """Have MkDocs keep this module between the builds of a preview."""


def _bounded(spelling: str) -> str:
    before = r"(?<![A-Za-z0-9_-])" if spelling[0].isascii() else r"(?<![ァ-ー])"
    after = r"(?![A-Za-z0-9_-])" if spelling[-1].isascii() else r"(?![ァ-ー])"
    return f"{before}{re.escape(spelling)}{after}"


def prepare(terms: list[glossary.Term]) -> None:
    """Take the spellings to explain, the longest first."""
    _terms.clear()
    _terms.update({spelling: term for term in terms for spelling in term.tooltips})
    longest_first = sorted(_terms, key=len, reverse=True)
    _pattern[:] = [re.compile("|".join(map(_bounded, longest_first)))] if _terms else []


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Read the glossary and write its page.

    Raises:
        PluginError: when an entry is incomplete or two of them claim one word.

    """
    terms, problems = glossary.read()
    stop_on(problems)
    prepare(terms)
    if terms:
        glossary.write(terms)
    return config


def explain(content: str) -> str:
    """Return the HTML of a page with each term's first use explained."""
    seen: set[str] = set()

    def mark(found: re.Match[str]) -> str:
        term = _terms[found[0]]
        if term.id in seen:
            return found[0]
        seen.add(term.id)
        return f'<abbr title="{html.escape(term.definition)}">{found[0]}</abbr>'

    closed: list[str] = []
    parts = _TAG.split(content)
    for index, part in enumerate(parts):
        if index % 2:
            _enter(part, closed)
        elif not closed and part.strip():
            parts[index] = _pattern[0].sub(mark, part)
    return "".join(parts)


def _enter(tag: str, closed: list[str]) -> None:
    found = _NAME.match(tag)
    if not found or (found[2] not in _CLOSED and 'class="mermaid"' not in tag and not closed):
        return
    if found[1]:
        if closed and closed[-1] == found[2]:
            closed.pop()
    elif not tag.endswith("/>") and (not closed or closed[-1] == found[2]):
        closed.append(found[2])


def on_page_content(content: str, /, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Explain the terms of a page."""
    return content if page.file.src_uri == _PAGE or not _pattern else explain(content)


def on_env(env: object, /, *, config: MkDocsConfig, files: Files) -> None:
    """Stop when a term points at a section that is not there."""
    sources = [Source.read(file) for file in files.documentation_pages() if not file.generated_by]
    anchors = {s.path.removeprefix("docs/"): {h.id for h in s.headings()} for s in sources}
    stop_on(glossary.lost(glossary.read()[0], anchors))
