"""One visit to a page in a slowed-down browser, and what it cost the reader."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any

from playwright.sync_api import Browser, CDPSession, Page

CPU_SLOWDOWN = 4  # Lighthouse's factor for a mid-range phone
_INDEX = "search_index.json"
_OBSERVE = """
window.seen = {lcp: 0, cls: 0, blocked: 0, drawn: 0};
const watch = (type, note) => new PerformanceObserver((list) => list.getEntries().forEach(note))
  .observe({type, buffered: true});
watch("largest-contentful-paint", (entry) => { seen.lcp = entry.startTime; });
watch("layout-shift", (entry) => { if (!entry.hadRecentInput) seen.cls += entry.value; });
watch("longtask", (entry) => { seen.blocked += Math.max(0, entry.duration - 50); });
const drawn = (figure) => figure.querySelector("svg")?.getBoundingClientRect().height > 0;
const look = () => {
  const figures = [...document.querySelectorAll("figure.diagram, .mermaid")];
  if (figures.length === EXPECTED && figures.every(drawn)) seen.drawn = performance.now();
  else requestAnimationFrame(look);
};
requestAnimationFrame(look);
"""


@dataclass(frozen=True)
class Visit:
    """Cost of one page; sizes in KiB as sent, times in ms, CLS as the browser sums it."""

    kib: float
    index_kib: float
    lcp: float
    cls: float
    blocked: float
    drawn: float


class _Meter:
    """Sums what the network carried."""

    def __init__(self, session: CDPSession) -> None:
        self.urls: dict[str, str] = {}
        self.bytes = {"page": 0.0, "index": 0.0}
        session.on("Network.responseReceived", self._named)
        session.on("Network.loadingFinished", self._loaded)
        session.send("Network.enable")

    def _named(self, event: dict[str, Any]) -> None:
        self.urls[event["requestId"]] = event["response"]["url"]

    def _loaded(self, event: dict[str, Any]) -> None:
        kind = "index" if self.urls.get(event["requestId"], "").endswith(_INDEX) else "page"
        self.bytes[kind] += event["encodedDataLength"]


def _settle(page: Page) -> dict[str, float]:
    page.wait_for_function("seen.drawn > 0", timeout=120_000)
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(500)
    seen: dict[str, float] = page.evaluate("seen")
    return seen


def visit(browser: Browser, url: str, diagrams: int) -> Visit:
    """Open a page in an empty profile and wait until all its diagrams can be seen."""
    with browser.new_context(viewport={"width": 412, "height": 823}) as context:
        page = context.new_page()
        session = context.new_cdp_session(page)
        meter = _Meter(session)
        session.send("Emulation.setCPUThrottlingRate", {"rate": CPU_SLOWDOWN})
        page.add_init_script(_OBSERVE.replace("EXPECTED", str(diagrams)))
        page.goto(url)
        seen = _settle(page)
    kib = {kind: size / 1024 for kind, size in meter.bytes.items()}
    return Visit(
        kib["page"], kib["index"], seen["lcp"], seen["cls"], seen["blocked"], seen["drawn"]
    )


def middle(visits: list[Visit]) -> Visit:
    """Return the median of each figure."""
    return Visit(*(median(values) for values in zip(*map(_figures, visits), strict=True)))


def _figures(visit: Visit) -> tuple[float, ...]:
    return (visit.kib, visit.index_kib, visit.lcp, visit.cls, visit.blocked, visit.drawn)
