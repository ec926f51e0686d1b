"""Say where a dead link stands: MkDocs finds it, this adds file, line and cure."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Literal

_MESSAGE = re.compile(r"^Doc file '(?P<doc>[^']+)' contains .*? '(?P<link>[^']*)',? (?P<why>.*)$")
_LOGGER = "mkdocs.structure.pages"


def _line(path: Path, link: str) -> int:
    lines = path.read_text(encoding="utf-8").split("\n")
    return next((number for number, line in enumerate(lines, 1) if link in line), 1)


def located(message: str, docs: Path) -> str:
    """Return MkDocs' warning as `file:line: what。cure`, or as it is when it is another."""
    found = _MESSAGE.match(message)
    path = docs / found["doc"] if found else docs
    if not found or not path.is_file():
        return message
    link = found["link"]
    what = "の見出しや印" if "anchor" in found["why"] else ""
    return (
        f"{docs.name}/{found['doc']}:{_line(path, link)}: リンク「{link}」の先{what}がありません。"
        f"綴りを直すか、リンク先を作ってください({found['why']})"
    )


class _Locator(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = located(record.getMessage(), Path("docs")), ()
        return True


def on_startup(*, command: Literal["build", "gh-deploy", "serve"], dirty: bool) -> None:
    """Listen to MkDocs' link check."""
    logger = logging.getLogger(_LOGGER)
    if not any(isinstance(known, _Locator) for known in logger.filters):
        logger.addFilter(_Locator())
