"""Put our own worker behind Material's search box, and its index where only searches load it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any, Literal

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.plugins import event_priority
from mkdocs.structure.pages import Page

from scripts import glossary, publishing
from scripts.bundle import BundleError, bundle, named
from scripts.setup import ROOT

_WORKER = ROOT / "scripts/search/worker.js"
# Browsers refuse workers to pages opened as files: this stands in for them, in a frame.
_SHIM = ROOT / "node_modules/iframe-worker/shim/index.js"
_SHIM_ADDRESS = "assets/search/iframe-worker.js"
_STOCK = re.compile(r'("search": ")([^"]*)assets/javascripts/workers/search\.[0-9a-f]+\.min\.js"')
_ASIDES = {"questions", "sources"}
_ASIDE = 0.5
_bundle: dict[str, bytes] = {}


def on_startup(*, command: Literal["build", "gh-deploy", "serve"], dirty: bool) -> None:
    """Have MkDocs keep this module between the builds of a preview."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Build the worker; its address changes with its content.

    Raises:
        PluginError: when esbuild is missing or refuses a module.

    """
    try:
        worker = bundle(_WORKER)
    except BundleError as error:
        raise PluginError(f"検索のプログラムを組めません\n{error}") from error
    _bundle.clear()
    _bundle[f"assets/search/{named('worker', worker)}"] = worker
    if publishing.is_offline(config):
        config.extra["polyfills"] = [_SHIM_ADDRESS]
    return config


def _own(output: str) -> str:
    address = next(iter(_bundle))
    return _STOCK.sub(rf'\g<1>\g<2>{address}"', output)


def on_post_page(output: str, /, *, page: Page, config: MkDocsConfig) -> str:
    """Name our worker in a page's configuration."""
    return _own(output)


def on_post_template(output: str, /, *, template_name: str, config: MkDocsConfig) -> str:
    """Name our worker in that of 404.html."""
    return _own(output)


def _json(content: object) -> bytes:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def _weighed(doc: dict[str, Any]) -> dict[str, Any]:
    """Rank what a page asks and lists behind what it explains."""
    anchor = doc["location"].partition("#")[2]
    return {**doc, "boost": _ASIDE} if anchor in _ASIDES else doc


def _concepts() -> list[dict[str, object]]:
    """Return every concept with its spellings and the section that explains it."""
    terms = glossary.read()[0]
    return [{"spellings": term.equivalents, "home": term.home} for term in terms]


def _split(folder: Path, index: dict[str, Any]) -> dict[str, Any]:
    """Write the index beside what Material loads with every page; return the latter."""
    content = _json(index)
    name = f"index.{hashlib.sha256(content).hexdigest()[:8]}.json"
    (folder / name).write_bytes(content)
    return {"config": {"index": f"../../search/{name}"}, "docs": []}


@event_priority(-50)  # after the index is written, before an offline build wraps it
def on_post_build(*, config: MkDocsConfig) -> None:
    """Write the worker and the index; drop what stock search would have loaded."""
    site = Path(config.site_dir)
    offline = publishing.is_offline(config)
    (site / "assets/search").mkdir(parents=True, exist_ok=True)
    for address, worker in _bundle.items():
        (site / address).write_bytes(worker)
    if offline:
        shutil.copyfile(_SHIM, site / _SHIM_ADDRESS)
    path = site / "search/search_index.json"
    docs = [_weighed(doc) for doc in json.loads(path.read_text(encoding="utf-8"))["docs"]]
    index = {"docs": docs, "glossary": _concepts()}
    whole: dict[str, Any] = {"config": {"glossary": index["glossary"]}, "docs": docs}
    loaded = whole if offline else _split(path.parent, index)
    loaded["config"] |= {"lang": ["ja"], "separator": r"\s+"}
    path.write_bytes(_json(loaded))
    shutil.rmtree(site / "assets/javascripts/lunr", ignore_errors=True)
    shutil.rmtree(site / "assets/javascripts/workers", ignore_errors=True)
