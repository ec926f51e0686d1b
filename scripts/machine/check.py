"""What keeps a Markdown copy from standing alone, told where an author can mend it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from scripts.machine import code
from scripts.problem import Problem
from scripts.source import Source

_REFERENCE = re.compile(r"\]\[(?P<label>[^\[\]]*)\]")
_MARKER = re.compile(r"-+8<-+.*")
_LINK = re.compile(r"\]\(\s*<?(?P<target>[^)\s>]*)|\b(?:href|src)=[\"'](?P<other>[^\"']*)")
_ABSOLUTE = re.compile(r"[a-z][a-z0-9+.-]*:", re.I)


def targets(copy: str) -> Iterator[str]:
    """Yield where the links of a copy lead; what stands in code is none."""
    for found in _LINK.finditer(code.hide(copy)[0]):
        yield found["target"] or found["other"] or ""


def _left_over(prose: str, source: Source) -> Iterator[Problem]:
    for found in _REFERENCE.finditer(prose):
        what = f"Markdownの写しに、解けない参照「[{found['label']}]」が残ります"
        cure = "includes/sources.mdに1行加え、「[文字][名前]」の形で引いてください"
        yield Problem(source.path, source.line_of(found[0]), what, cure)
    for found in _MARKER.finditer(prose):
        what = "Markdownの写しに、取り込みの印「--8<--」が残ります"
        cure = '「--8<-- "ファイル:節"」だけの行にしてください'
        yield Problem(source.path, source.line_of(found[0]), what, cure)


def _stands(target: str, site: str, folder: Path) -> bool:
    """Tell whether a built site has the page or file of one of its addresses."""
    path = unquote(target.removeprefix(site).partition("#")[0])
    place = folder / path
    return (place / "index.html" if not path or path.endswith("/") else place).is_file()


def _links(copy: str, source: Source, site: str, folder: Path) -> Iterator[Problem]:
    for target in targets(copy):
        line = source.line_of(target)
        if not _ABSOLUTE.match(target):
            what = f"Markdownの写しに、相対リンク「{target}」が残ります"
            cure = "「[文字](ページ.md#id)」の形で書いてください"
            yield Problem(source.path, line, what, cure)
        elif target.startswith(site) and not _stands(target, site, folder):
            what = f"Markdownの写しのリンク「{target}」の先がありません"
            yield Problem(source.path, line, what, "綴りを直すか、リンク先を作ってください")


def check(copy: str, source: Source, site: str, folder: Path) -> Iterator[Problem]:
    """Yield what is wrong with one copy; `folder` holds the site built for the address `site`."""
    yield from _left_over(code.hide(copy)[0], source)
    yield from _links(copy, source, site, folder)
