"""Rules a diagram's source must keep, checked without drawing it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from scripts.diagrams.fence import Fence
from scripts.problem import Problem

_COLOUR = re.compile(
    r"^\s*(?:style\b|classDef\b|linkStyle\b).*(?:#[0-9a-f]{3,8}\b|(?:fill|stroke|color|background)\s*:)"
    r"|^\s*rect\s+(?:rgba?|hsla?|#|[a-z]+\b)"
    r"|^\s*box\s+(?:rgba?|hsla?|#|transparent\b)"
    r"|%%\{\s*init\b.*(?:theme|color)",
    re.I,
)
_THEME_FRONT_MATTER = re.compile(r"^\s*(?:theme|themeVariables|themeCSS)\s*:", re.I)


def _labels(fence: Fence) -> Iterator[Problem]:
    if not fence.title:
        yield Problem(
            fence.path,
            fence.line,
            "図に題名(accTitle)がありません",
            "種類の次の行に「accTitle: 図の題名」を書いてください",
        )
    if not fence.description:
        yield Problem(
            fence.path,
            fence.line,
            "図に説明(accDescr)がありません",
            "「accDescr: 図から分かること」を1〜2文で書いてください",
        )


def _colours(fence: Fence) -> Iterator[Problem]:
    for offset, line in enumerate(fence.source.split("\n")):
        if _COLOUR.search(line) or _THEME_FRONT_MATTER.search(line):
            yield Problem(
                fence.path,
                fence.line_of(offset),
                f"図に色が直接書かれています(「{line.strip()}」)",
                "明暗どちらでも読めるように色の指定を消し、線種や文言で区別してください",
            )


def check(fence: Fence) -> list[Problem]:
    """Return what is wrong with the source of one fence."""
    return [*_labels(fence), *_colours(fence)]
