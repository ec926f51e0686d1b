"""Search as a reader does: type into the box of a served site and read the first pages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from playwright.sync_api import Browser, Page

QUERIES = Path(__file__).with_name("data") / "queries.yml"
FIRST = 10
RECALL = 5
# The box works in a worker: note when it was asked and when it has answered.
_WATCH = """
const Stock = Worker;
window.Worker = class extends Stock {
  constructor(...given) {
    super(...given);
    this.addEventListener("message", ({data}) => { if (data.type === 3) window.answered = true; });
  }
  postMessage(message, ...rest) {
    if (message.type === 2) window.answered = false;
    super.postMessage(message, ...rest);
  }
};
"""
_FOUND = """() => [...document.querySelectorAll(".md-search-result__item")].map((item) => {
  const place = (link) => new URL(link.href).pathname.slice(1);
  return place(item.querySelector("a"));
})"""


@dataclass(frozen=True)
class Query:
    """One graded query: `pages` are all right answers, none for nonsense."""

    query: str
    kind: str
    pages: tuple[str, ...]
    sections: tuple[str, ...] = ()


@dataclass
class Grade:
    """How well one kind of queries was answered; each list holds a figure a query."""

    ranks: list[float] = field(default_factory=list)
    recalls: list[float] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)

    def note(self, query: Query, found: list[str]) -> None:
        """Add one answer: pages in the order shown."""
        best = next((1 / n for n, page in enumerate(found, 1) if page in query.pages), 0.0)
        self.ranks.append(best)
        shown = set(found[:RECALL])
        self.recalls.append(sum(page in shown for page in query.pages) / len(query.pages))
        if not found:
            self.empty.append(query.query)


def queries(path: Path = QUERIES) -> list[Query]:
    """Read the graded queries."""
    listed: list[dict[str, Any]] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return [
        Query(q["query"], q["kind"], tuple(q["pages"]), tuple(q.get("sections", ())))
        for q in listed
    ]


@contextmanager
def opened(browser: Browser, address: str) -> Iterator[Page]:
    """Open the site with the search box in focus."""
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        page = context.new_page()
        page.add_init_script(_WATCH)
        page.goto(address, wait_until="load")
        page.locator(".md-search__input").click()
        yield page


def ask(page: Page, text: str) -> list[str]:
    """Type a query and return the pages found, in the order shown, at most ten."""
    page.evaluate("window.answered = false")
    page.locator(".md-search__input").fill(text)
    page.wait_for_function("window.answered", timeout=20_000)
    page.wait_for_timeout(30)
    found: list[str] = page.evaluate(_FOUND)
    return found[:FIRST]


def grade(page: Page, asked: list[Query]) -> dict[str, Grade]:
    """Ask all queries but the nonsense; return the grades by kind."""
    grades: dict[str, Grade] = {}
    for query in asked:
        if query.kind != "nonsense":
            grades.setdefault(query.kind, Grade()).note(query, ask(page, query.query))
    return grades


def mean(grades: dict[str, Grade], name: Literal["ranks", "recalls"]) -> float:
    """Return the mean of `ranks` (MRR@10) or `recalls` (Recall@5) over all queries."""
    figures: list[float] = [f for grade in grades.values() for f in getattr(grade, name)]
    return sum(figures) / len(figures)
