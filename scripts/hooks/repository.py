"""Offer edit links only where the repository's address is known (REPO_URL)."""

from __future__ import annotations

from mkdocs.config.defaults import MkDocsConfig


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Drop the edit address when there is no repository to edit in."""
    if not config.repo_url:
        config.edit_uri = None
    return config
