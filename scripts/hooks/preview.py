"""Give the preview Mermaid's own file, and keep it out of what is published."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import Files

from scripts import publishing
from scripts.diagrams.painter import MERMAID

_FILE = "assets/mermaid.min.js"
_run = {"publishes": False}


def on_startup(*, command: Literal["build", "gh-deploy", "serve"], dirty: bool) -> None:
    """Decide once whether this run previews.

    Raises:
        PluginError: when Mermaid was not installed.

    """
    _run["publishes"] = publishing.publishes(command)
    if not MERMAID.is_file():
        raise PluginError("Mermaidがありません。「make setup」で用意してください")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the file where mermaid2 looks for it; instant navigation would leave it unrun."""
    target = Path(config.docs_dir) / _FILE
    if not target.is_file() or target.stat().st_size != MERMAID.stat().st_size:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(MERMAID, target)
    if not _run["publishes"]:
        features = config.theme["features"]
        config.theme["features"] = [f for f in features if not f.startswith("navigation.instant")]
    return config


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Leave the file out of a published site."""
    file = files.get_file_from_path(_FILE)
    if file and _run["publishes"]:
        files.remove(file)
    return files
