"""Name the theme's search dialog for screen readers, which Material leaves unnamed."""

from __future__ import annotations

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.pages import Page

_UNNAMED = 'data-md-component="search" role="dialog"'
_NAMED = f'{_UNNAMED} aria-label="検索"'


def on_post_page(output: str, /, *, page: Page, config: MkDocsConfig) -> str:
    """Name the dialog of a page."""
    return output.replace(_UNNAMED, _NAMED)


def on_post_template(output: str, /, *, template_name: str, config: MkDocsConfig) -> str:
    """Name the dialog of 404.html."""
    return output.replace(_UNNAMED, _NAMED)
