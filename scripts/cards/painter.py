"""Draw cards in one headless Chromium, and keep those that have not changed."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from scripts import chromium

SIZE = (1200, 630)  # px; what the Open Graph readers of GitHub, Slack and Notion show whole
CACHE = Path(".cache/cards")
_LOGO = Path("docs/assets/logo.svg")
_DRAW = Path(__file__).with_name("draw.js")
_PAGE = """<!doctype html><meta charset="utf-8"><pre id="drawn"></pre>
<script type="application/json" id="jobs">{jobs}</script>
<script type="module">{draw}</script>
"""


@dataclass(frozen=True)
class Card:
    """What one card says."""

    site: str
    part: str
    title: str
    description: str

    @property
    def file(self) -> Path:
        """Return where it is kept; the name changes with all it depends on."""
        told = json.dumps(asdict(self)).encode() + _DRAW.read_bytes() + _LOGO.read_bytes()
        return CACHE / f"{hashlib.sha256(told).hexdigest()[:16]}.png"


def _page(cards: list[Card]) -> str:
    logo = base64.b64encode(_LOGO.read_bytes()).decode()
    jobs = {"logo": f"data:image/svg+xml;base64,{logo}", "jobs": [asdict(c) for c in cards]}
    text = json.dumps(jobs, ensure_ascii=False).replace("<", "\\u003c")
    return _PAGE.format(jobs=text, draw=_DRAW.read_text(encoding="utf-8"))


def _pictures(cards: list[Card]) -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "cards.html"
        page.write_text(_page(cards), encoding="utf-8")
        dom = chromium.dump_dom(page)
    drawn = re.search(r'<pre id="drawn">([^<]+)</pre>', dom)
    if not drawn:
        raise chromium.NoChromiumError(
            "Chromiumがカードを返しませんでした。もう一度実行してください"
        )
    return [base64.b64decode(picture) for picture in json.loads(drawn[1])]


def draw(cards: Iterable[Card]) -> None:
    """Draw the cards that are not kept yet.

    Raises:
        NoChromiumError: when no Chromium is found or it hands nothing back.

    """
    missing = [card for card in cards if not card.file.is_file()]
    if not missing:
        return
    print(f"==> {len(missing)}枚のカードを描きます", flush=True)
    CACHE.mkdir(parents=True, exist_ok=True)
    for card, picture in zip(missing, _pictures(missing), strict=True):
        card.file.write_bytes(picture)
