"""Give every page the picture that a link to it shows (`og:image`)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.nav import Navigation
from mkdocs.structure.pages import Page
from mkdocs.utils.templates import TemplateContext

from scripts import publishing
from scripts.cards.painter import SIZE, Card, draw
from scripts.chromium import NoChromiumError

_cards: dict[str, Card] = {}
_run = {"publishes": False}


def on_startup(*, command: Literal["build", "gh-deploy", "serve"], dirty: bool) -> None:
    """Decide once whether this run draws."""
    _run["publishes"] = publishing.publishes(command)


def on_pre_build(*, config: MkDocsConfig) -> None:
    """Forget the pages of an earlier build."""
    _cards.clear()


def _card(page: Page, config: MkDocsConfig) -> Card:
    part = page.parent.title if page.parent and not page.is_homepage else ""
    title = config.site_description if page.is_homepage else page.title
    description = page.meta.get("description") or config.site_description
    return Card(config.site_name, part, str(title), str(description))


def on_page_context(
    context: TemplateContext, /, *, page: Page, config: MkDocsConfig, nav: Navigation
) -> TemplateContext:
    """Tell the template the picture's address; nobody links to a copy on a disk."""
    if _run["publishes"] and not publishing.is_offline(config):
        address = f"assets/cards/{page.file.src_uri.removesuffix('.md')}.png"
        _cards[address] = _card(page, config)
        context["card"] = {"address": address, "width": SIZE[0], "height": SIZE[1]}  # type: ignore[typeddict-unknown-key] # MkDocs' own keys are not all
    return context


def on_post_build(*, config: MkDocsConfig) -> None:
    """Write the pictures.

    Raises:
        PluginError: when nothing is there to draw with.

    """
    try:
        draw(_cards.values())
    except NoChromiumError as missing:
        raise PluginError(str(missing)) from missing
    for address, card in _cards.items():
        path = Path(config.site_dir) / address
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(card.file, path)
