"""The author's Mermaid settings: those that mkdocs.yml gives the mermaid2 plugin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def of(config: Mapping[str, Any]) -> dict[str, object]:
    """Return mermaid2's `arguments` from a loaded MkDocs configuration."""
    plugin = config["plugins"].get("mermaid2")
    return dict(plugin.config["arguments"]) if plugin else {}
