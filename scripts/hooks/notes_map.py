"""Refuse a build that leaves a line of the notes unanswered; make the page that maps them."""

from __future__ import annotations

from mkdocs.config.defaults import MkDocsConfig

from scripts import chapters, made, notes
from scripts.problem import stop_on


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Check the answers and write the page.

    Raises:
        PluginError: when a line is not answered where docs/appendix/notes.yml says.

    """
    if not notes.FILE.is_file():
        return config
    lines = notes.read()
    answers = chapters.pages(config.nav)
    stop_on(notes.check(lines, answers))
    made.write(notes.PAGE, notes.page(lines, answers))
    return config
