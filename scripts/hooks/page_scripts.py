"""Give a page the scripts that its front matter names (`scripts: [planner/form.js]`)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

from scripts.bundle import BundleError, bundle, named
from scripts.problem import Problem
from scripts.setup import ROOT
from scripts.source import Source

_written: dict[str, bytes] = {}


def on_startup(*, command: Literal["build", "gh-deploy", "serve"], dirty: bool) -> None:
    """Have MkDocs keep this module between the builds of a preview."""


def _refusal(entry: str, source: Source, error: BundleError) -> PluginError:
    cure = "scripts/の下にあるファイルの名前にするか、次の誤りを直してください"
    line = source.line_of(entry)
    problem = Problem(source.path, line, f"プログラム「{entry}」を組めません", cure)
    return PluginError(f"\n{problem}\n{error}")


def _address(entry: str, source: Source) -> str:
    try:
        content = bundle(ROOT / "scripts" / entry)
    except BundleError as error:
        raise _refusal(entry, source, error) from error
    address = f"assets/scripts/{named(entry.removesuffix('.js').replace('/', '.'), content)}"
    _written[address] = content
    return address


def on_page_markdown(markdown: str, /, *, page: Page, config: MkDocsConfig, files: Files) -> None:
    """Bundle what the page names; the template links it by its address.

    Raises:
        PluginError: when a script is missing or broken.

    """
    entries = page.meta.get("scripts")
    if entries:
        source = Source.read(page.file)
        page.meta["scripts"] = [_address(entry, source) for entry in entries]


def on_post_build(*, config: MkDocsConfig) -> None:
    """Write the scripts."""
    for address, content in _written.items():
        path = Path(config.site_dir) / address
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
