"""Write the pages of the appendix that are gathered from the chapters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig

from scripts import bibliography, chapters, commands, made, misconceptions, symptoms
from scripts.chapters import Chapter
from scripts.problem import stop_on

_Page = Callable[[list[Chapter]], str]
_OF_CHAPTERS: dict[Path, _Page] = {
    misconceptions.PAGE: misconceptions.page,
    symptoms.PAGE: symptoms.page,
    commands.PAGE: commands.page,
}
_OF_EVERY_PAGE: dict[Path, _Page] = {bibliography.PAGE: bibliography.page}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Write what the table of contents names, unless it stands so: a preview would build again.

    Raises:
        PluginError: when a symptom row has not its four cells, or the list of commands lacks one.

    """
    named = {Path(config.docs_dir) / uri for uri in chapters.files(config.nav)}
    found = chapters.read(config.nav)
    stop_on([*symptoms.check(found), *(commands.check(found) if commands.FILE.is_file() else ())])
    for pages, given in ((_OF_CHAPTERS, found), (_OF_EVERY_PAGE, chapters.citing(config.nav))):
        for path, page in pages.items():
            if path.absolute() in named:
                made.write(path, page(given))
    return config
