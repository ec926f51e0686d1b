"""Whether this run of MkDocs publishes the site or previews it.

`mkdocs serve` previews: the author's browser draws. `make build` publishes and says so in
the environment. Plain `mkdocs build` publishes where a Chromium is at hand and otherwise
builds the preview, so that it works in the environment `make serve` made.
"""

from __future__ import annotations

import os

from mkdocs.config.defaults import MkDocsConfig

from scripts import chromium

VARIABLE = "INFRA_NOTES_PUBLISH"


def insisted() -> bool:
    """Return whether publishing was asked for: then a missing Chromium is an error."""
    return os.environ.get(VARIABLE) == "1"


def publishes(command: str) -> bool:
    """Return whether the MkDocs command ('build', 'serve', 'gh-deploy') publishes."""
    return command != "serve" and (insisted() or chromium.find() is not None)


def is_offline(config: MkDocsConfig) -> bool:
    """Return whether the site is built to be opened from a disk."""
    plugin = config.plugins.get("material/offline")
    return plugin is not None and bool(plugin.config["enabled"])
