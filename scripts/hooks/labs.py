"""Make the catalogue of labs, and hold chapters and labs to each other's facts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

from scripts import lab_pages
from scripts.problem import Problem, stop_on
from scripts.source import Source

_CITED = re.compile(r"\]\[(?P<fact>[a-z0-9-]+/[a-z0-9-]+)\]")
_SHOWN = 3
_records: list[lab_pages.Record] = []
_cited: set[str] = set()
_chapters: set[str] = set()
_problems: list[Problem] = []


def on_startup(*, command: Literal["build", "gh-deploy", "serve"], dirty: bool) -> None:
    """Have MkDocs keep this module between the builds of a preview."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Read the records, write what they give the site."""
    _records[:] = lab_pages.read()
    for kept in (_cited, _chapters, _problems):
        kept.clear()
    lab_pages.write(_records, (config.repo_url or "").rstrip("/"))
    return config


def check(source: Source, records: list[lab_pages.Record]) -> Iterator[Problem]:
    """Yield the facts and labs that a page names and that are not there."""
    known = {fact for record in records for fact in record.facts}
    for number, line in source.prose():
        for fact in _CITED.findall(line):
            if fact not in known:
                near = [one for one in sorted(known) if one.split("/")[0] == fact.split("/")[0]]
                cure = f"ある事実から選んでください({'、'.join(near[:_SHOWN])} …)"
                yield Problem(source.path, number, f"事実「{fact}」はありません", cure)
    for lab in source.front_matter.get("labs") or ():
        if lab not in {record.id for record in records}:
            cure = "labs/にある実験の名前にするか、「python -m labs record」で記録してください"
            line_of = source.line_of("labs:")
            yield Problem(source.path, line_of, f"実験「{lab}」の記録がありません", cure)


def on_page_markdown(markdown: str, /, *, page: Page, config: MkDocsConfig, files: Files) -> None:
    """Check and note what a page cites."""
    if page.file.generated_by:
        return
    source = Source.read(page.file)
    _chapters.add(page.file.src_uri)
    _cited.update(fact for _, line in source.prose() for fact in _CITED.findall(line))
    _problems.extend(check(source, _records))


def on_env(env: object, /, *, config: MkDocsConfig, files: Files) -> None:
    """Stop before anything is written when chapters and labs do not fit."""
    reasons = lab_pages.excused()
    stop_on([*_problems, *lab_pages.uncited(_records, _cited, _chapters, reasons)])
