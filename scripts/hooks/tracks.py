"""Make the pages of the onboarding tracks, and the files that teams take along."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig

from scripts import chapters, lab_pages, made
from scripts.problem import stop_on
from scripts.tracks import checklist, page, track

_FOLDER = Path("docs/onboarding")
_INCLUDES = Path("includes")


def _shelf(config: MkDocsConfig) -> track.Shelf:
    by_file = {chapter.uri: chapter for chapter in chapters.read(config.nav)}
    return track.Shelf(by_file, {record.id: record for record in lab_pages.read()})


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Write every track's page, checklist, CSV and issue form.

    Raises:
        PluginError: when a track names a section, lab or question that does not exist.

    """
    if not track.FILE.is_file():
        return config
    shelf, site = _shelf(config), config.site_url or ""
    tracks = track.read(shelf)
    stop_on(shelf.problems)
    for one in tracks:
        made.write(_FOLDER / f"{one.id}.md", page.page(one, site))
        made.write(_FOLDER / f"{one.id}-checklist.txt", checklist.whole(one, site))
        made.write(_FOLDER / f"{one.id}.csv", checklist.table(one, site))
        made.write(_FOLDER / f"{one.id}-issue-form.yml", checklist.issue_form(one, site))
    made.write(_INCLUDES / "tracks.md", page.overview(tracks))
    made.write(_INCLUDES / "checklists.md", page.checklists(tracks, site))
    return config
