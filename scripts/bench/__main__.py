"""`make bench`: pages, builds and Lighthouse, as ratios against stock Material."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Browser

from scripts import build
from scripts.bench import lighthouse, stock
from scripts.bench.visit import CPU_SLOWDOWN, Visit, middle, visit
from scripts.diagrams import gallery
from scripts.diagrams.fence import find_fences
from scripts.driver import driven
from scripts.server import serving

_CHAPTERS = ("protocols/tcp-connection", "os/process-lifecycle", "os/virtual-memory")
_ROUNDS = 5
_ROW = "{:<28}{:>12}{:>12}{:>8}"


def _ratio(ours: float, theirs: float) -> str:
    return f"{theirs / ours:.1f}×" if ours else "—"


def _compare(chapter: str, ours: Visit, theirs: Visit) -> None:
    print(_ROW.format(f"/{chapter}/", "ours", "stock", "ratio"))
    rows = {
        "KiB without search index": (ours.kib, theirs.kib),
        "KiB of search index": (ours.index_kib, theirs.index_kib),
        "LCP ms": (ours.lcp, theirs.lcp),
        "CLS": (ours.cls, theirs.cls),
        "total blocking ms": (ours.blocked, theirs.blocked),
        "diagrams visible ms": (ours.drawn, theirs.drawn),
    }
    for name, (own, other) in rows.items():
        print(_ROW.format(f"  {name}", f"{own:.3g}", f"{other:.3g}", _ratio(own, other)))


def _diagrams(chapter: str) -> int:
    path = Path(f"docs/{chapter}.md")
    return len(find_fences(path.read_text(encoding="utf-8"), str(path)))


def _pages(browser: Browser, ours: str, theirs: str) -> None:
    for chapter in _CHAPTERS:
        visits: dict[str, list[Visit]] = {ours: [], theirs: []}
        for _ in range(_ROUNDS):
            for address, made in visits.items():
                made.append(visit(browser, f"{address}/{chapter}/", _diagrams(chapter)))
        _compare(chapter, middle(visits[ours]), middle(visits[theirs]))


def _seconds() -> float:
    start = time.perf_counter()
    if build.build():
        raise SystemExit("サイトを組めませんでした")
    return time.perf_counter() - start


def _builds() -> None:
    shutil.rmtree(gallery.STORE, ignore_errors=True)
    cold, warm = _seconds(), _seconds()
    print(f"build: cold {cold:.1f} s, warm {warm:.1f} s (process start included)")


def main() -> None:
    """Print all figures; medians of interleaved visits with an empty cache."""
    with tempfile.TemporaryDirectory() as folder:
        rival = stock.build(Path(folder), [f"{chapter}.md" for chapter in _CHAPTERS])
        with serving(build.SITE) as ours, serving(rival) as theirs:
            print(f"{_ROUNDS} visits each, median, CPU {CPU_SLOWDOWN}× slower, gzip, 412 px wide")
            with driven() as browser:
                _pages(browser, ours, theirs)
            for chapter in _CHAPTERS:
                print(f"Lighthouse /{chapter}/ {lighthouse.scores(f'{ours}/{chapter}/')}")
    _builds()


if __name__ == "__main__":
    main()
