"""Compare every build with permalinks.txt; `make permalinks` records instead."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority

from scripts import permalinks
from scripts.problem import stop_on

VARIABLE = "INFRA_NOTES_PERMALINKS"
_run = {"checks": False}


def on_startup(*, command: Literal["build", "gh-deploy", "serve"], dirty: bool) -> None:
    """Leave the preview alone: a half-written page may lose what it likes."""
    _run["checks"] = command != "serve"


@event_priority(-100)
def on_post_build(*, config: MkDocsConfig) -> None:
    """Check or record, after every plugin has written its pages.

    Raises:
        PluginError: when a published link is lost or a new one is not listed.

    """
    if not _run["checks"] or not config.use_directory_urls:  # an offline copy has other addresses
        return
    site = permalinks.read_site(Path(config.site_dir))
    if os.environ.get(VARIABLE) == "record":
        permalinks.record(site)
        return
    listed = permalinks.read_list()
    stop_on([*permalinks.lost(site, listed), *permalinks.unlisted(site, listed)])
