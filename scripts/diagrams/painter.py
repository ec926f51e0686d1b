"""Draw a batch of Mermaid sources in one headless Chromium."""

from __future__ import annotations

import base64
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts import chromium
from scripts.diagrams import palette

ROOT = Path(__file__).parents[2]
MERMAID = ROOT / "node_modules/mermaid/dist/mermaid.min.js"
DRAW = Path(__file__).with_name("draw.js")

_PAGE = """<!doctype html><meta charset="utf-8">
<body><div id="easel"></div><pre id="drawn"></pre>
<script type="application/json" id="jobs">{jobs}</script>
<script src="{mermaid}"></script>
<script type="module">{draw}</script>
"""
# What publishing adds to the author's Mermaid settings: sentinels for colours, and
# fixed seeds so that the same source gives the same bytes.
_FIXED: Mapping[str, object] = {
    "startOnLoad": False,
    "securityLevel": "strict",
    "deterministicIds": True,
    "deterministicIDSeed": "infra-notes",
    "handDrawnSeed": 1,
    "fontFamily": '"Noto Sans CJK JP", "Hiragino Sans", sans-serif',
    "theme": "base",
}


@dataclass(frozen=True)
class Drawing:
    """A drawn diagram: SVG pieces, and sizes in CSS pixels at natural size."""

    inner: str
    css: str
    kind: str
    viewBox: str  # noqa: N815 - the name SVG gives it
    width: float
    height: float
    text: float


@dataclass(frozen=True)
class Refusal:
    """Mermaid's error and the line of the source, counted from 0, that causes it."""

    error: str
    line: int


def config(author: Mapping[str, object]) -> dict[str, object]:
    """Return the Mermaid configuration for publishing."""
    return {**author, **_FIXED, "themeVariables": palette.theme_variables()}


def _page(sources: Sequence[str], author: Mapping[str, object]) -> str:
    jobs = json.dumps({"config": config(author), "jobs": sources}, ensure_ascii=False)
    return _PAGE.format(
        jobs=jobs.replace("<", "\\u003c"),
        mermaid=MERMAID.as_uri(),
        draw=DRAW.read_text(encoding="utf-8"),
    )


def _outcome(result: Mapping[str, object]) -> Drawing | Refusal:
    if "error" in result:
        return Refusal(str(result["error"]), int(str(result["line"])))
    return Drawing(**result)  # type: ignore[arg-type]  # draw.js returns just these fields


def draw(sources: Sequence[str], author: Mapping[str, object]) -> list[Drawing | Refusal]:
    """Draw all sources, in order.

    Raises:
        NoChromiumError: when no Chromium is found or it hands nothing back.

    """
    if not sources:
        return []
    print(f"==> {len(sources)}枚の図を描きます", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "draw.html"
        page.write_text(_page(sources, author), encoding="utf-8")
        dom = chromium.dump_dom(page)
    drawn = re.search(r'<pre id="drawn">([^<]+)</pre>', dom)
    if not drawn:
        raise chromium.NoChromiumError("Chromiumが図を返しませんでした。もう一度実行してください")
    return [_outcome(result) for result in json.loads(base64.b64decode(drawn[1]))]
