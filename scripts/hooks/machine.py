"""Write what programs read: chapters.json with its schema, Markdown copies and llms.txt."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority

from scripts import lab_pages, made, publishing
from scripts.machine import catalogue, check, llms, page, plain
from scripts.machine.page import Page
from scripts.problem import stop_on

_run = {"serves": False}


def on_startup(*, command: Literal["build", "gh-deploy", "serve"], dirty: bool) -> None:
    """Leave the preview alone: only people read it."""
    _run["serves"] = command == "serve"


def _copies(pages: list[Page], config: MkDocsConfig) -> dict[str, str]:
    """Return the Markdown copies by their addresses."""
    expand = plain.expander(config.mdx_configs.get("pymdownx.snippets", {}))
    return {one.copy: plain.copy(one, expand) for one in pages}


def _lists(pages: list[Page], config: MkDocsConfig) -> dict[str, str]:
    """Return the files that list the pages, by their addresses."""
    name, site = config.site_name, config.site_url or ""
    summary = pages[0].description if pages else config.site_description or ""
    document = catalogue.document(name, site, pages, lab_pages.read())
    return {
        site + catalogue.NAME: catalogue.text(document),
        site + catalogue.SCHEMA: catalogue.text(catalogue.schema(site)),
        site + llms.NAME: llms.text(name, summary, site, pages),
    }


@event_priority(-90)  # when every file that a link may lead to is written
def on_post_build(*, config: MkDocsConfig) -> None:
    """Write the files; a copy on a disk has no addresses to name.

    Raises:
        PluginError: when a Markdown copy would not stand alone.

    """
    if _run["serves"] or publishing.is_offline(config):
        return
    site, folder = config.site_url or "", Path(config.site_dir)
    pages = page.read(config.nav, site, Path(config.docs_dir))
    copies = _copies(pages, config)
    for address, text in (copies | _lists(pages, config)).items():
        made.write(folder / address.removeprefix(site), text)
    stop_on(p for one in pages for p in check.check(copies[one.copy], one.source, site, folder))
