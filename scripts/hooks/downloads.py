"""Offer the whole site as one file, with size and date, once the files are made."""

from __future__ import annotations

import shutil
from datetime import date
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

from scripts import publishing

_DIST = Path("dist")
_FOLDER = "downloads"
_FILES = {
    "infra-notes.pdf": "PDF（A4、目次つき）",
    "infra-notes-offline.zip": "オフライン版（ZIP、検索もできます）",
}
_MARK = "<!-- downloads -->"
_MEBIBYTE = 1 << 20


def _line(name: str, title: str) -> str:
    file = _DIST / name
    made = date.fromtimestamp(file.stat().st_mtime)
    size = f"{file.stat().st_size / _MEBIBYTE:.1f} MiB"
    day = f"{made.year}年{made.month}月{made.day}日"
    return f'<li><a href="{_FOLDER}/{name}" download>{title}</a>（{size}、{day}）</li>'


def _made() -> dict[str, str]:
    return {name: title for name, title in _FILES.items() if (_DIST / name).is_file()}


def _offers(config: MkDocsConfig) -> bool:
    """Tell whether the files can be offered: all are there, and this is not one of them."""
    return len(_made()) == len(_FILES) and not publishing.is_offline(config)


def on_page_content(content: str, /, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill the place on the home page."""
    if not _offers(config):
        return content
    items = "".join(_line(name, title) for name, title in _made().items())
    return content.replace(
        _MARK, f'<p>まとめて手元に置けます。</p><ul class="downloads">{items}</ul>'
    )


def on_post_build(*, config: MkDocsConfig) -> None:
    """Copy the files into the site."""
    if not _offers(config):
        return
    folder = Path(config.site_dir) / _FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name in _FILES:
        shutil.copyfile(_DIST / name, folder / name)
