"""The published site in a real browser: every page, every promise."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect

from tests import checks
from tests.workshop import ROOT

_PAGES = checks.pages_of(ROOT / "site")
_CHAPTER = "/protocols/tcp-connection/"
_PARTS = ("/protocols/", "/os/", "/network/", "/database/")
_CHAPTERS = [p for p in _PAGES if p.startswith(_PARTS) and p not in _PARTS]
_PHONE: ViewportSize = {"width": 360, "height": 780}
_DESK: ViewportSize = {"width": 1280, "height": 900}


@contextmanager
def _visit(
    browser: Browser,
    url: str,
    *,
    viewport: ViewportSize = _DESK,
    java_script_enabled: bool = True,
) -> Iterator[Page]:
    context = browser.new_context(
        viewport=viewport,
        java_script_enabled=java_script_enabled,
        locale="ja-JP",
    )
    page = context.new_page()
    page.goto(url, wait_until="load")
    yield page
    context.close()


def _html(site: Path, url: str) -> str:
    path = site / url.lstrip("/")
    path = path / "index.html" if url.endswith("/") else path
    return path.read_text(encoding="utf-8")


def _darken(page: Page) -> None:
    page.emulate_media(color_scheme="dark")
    expect(page.locator("body")).to_have_attribute("data-md-color-scheme", "slate")


@pytest.mark.parametrize("url", _PAGES)
def test_a_page_asks_no_other_host_logs_no_error_and_has_no_axe_violation(
    url: str, browser: Browser, address: str
) -> None:
    code = url == _CHAPTER  # its code stands for that of all
    with browser.new_context(viewport=_DESK, locale="ja-JP") as context:
        page = context.new_page()
        requests: list[str] = []
        errors: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        page.goto(address + url, wait_until="networkidle")
        assert checks.foreign(requests, address) == []
        assert errors == []
        assert checks.axe(page, code=code) == []
        _darken(page)
        assert checks.axe(page, "color-contrast", code=code) == []


@pytest.mark.parametrize("url", _PAGES)
def test_a_page_fits_a_phone_and_its_diagrams_can_be_read(
    url: str, browser: Browser, address: str
) -> None:
    with _visit(browser, address + url, viewport=_PHONE) as page:
        assert checks.overflowing(page) == []
        assert checks.faint_diagrams(page) == []
        _darken(page)
        assert checks.faint_diagrams(page) == []


@pytest.mark.parametrize("url", _CHAPTERS)
def test_a_chapter_can_be_read_without_javascript(url: str, browser: Browser, address: str) -> None:
    with _visit(browser, address + url, java_script_enabled=False) as page:
        expect(page.locator("article h1")).to_be_visible()
        expect(page.locator("figure.diagram svg").first).to_be_visible()
        question = page.locator("details.question").first
        question.locator("summary").click()
        expect(question.locator("p").first).to_be_visible()
        told = page.locator(".diagram__text").first
        told.locator("summary").click()
        expect(told.locator("p")).to_be_visible()


@pytest.mark.parametrize("url", _PAGES)
def test_a_page_is_drawn_and_every_id_is_its_own(url: str, site: Path) -> None:
    html = _html(site, url)
    assert checks.mermaid(html) == []
    assert checks.bad_ids(html) == []
    assert checks.unnamed_diagrams(html) == []
    assert checks.unknown_tags(html) == []


@pytest.mark.parametrize("url", _CHAPTERS)
def test_diagrams_show_the_addresses_that_the_author_wrote(url: str, site: Path) -> None:
    source = (ROOT / f"docs{url.rstrip('/')}.md").read_text(encoding="utf-8")
    assert checks.lost_addresses(source, _html(site, url)) == []


def test_no_mermaid_file_is_published(site: Path) -> None:
    assert [path for path in site.rglob("*mermaid*") if path.is_file()] == []


def test_labels_of_diagrams_stay_out_of_the_search_index(site: Path) -> None:
    (path,) = (site / "search").glob("index.*.json")
    index = json.loads(path.read_text(encoding="utf-8"))
    texts = "".join(doc["text"] for doc in index["docs"])
    assert "<svg" not in texts
    assert "アプリがclose" not in texts
    assert "ウィンドウスケール" in texts


@pytest.mark.parametrize("url", _CHAPTERS)
def test_a_chapter_describes_itself_to_those_who_link_to_it(url: str, site: Path) -> None:
    html = _html(site, url)
    source = (ROOT / f"docs{url.rstrip('/')}.md").read_text(encoding="utf-8")
    description = source.split("description: ")[1].split("\n")[0]
    assert f'<meta name="description" content="{description}">' in html
    assert f'<meta property="og:description" content="{description}">' in html
    assert '<meta property="og:title"' in html
    assert '<meta property="og:url"' in html


def test_a_missing_page_gets_our_own_404(browser: Browser, address: str) -> None:
    with _visit(browser, address + "/no/such/page/") as page:
        expect(page.locator("h1#not-found")).to_have_text("このページは見つかりません")
        page.locator("article a").first.click()
        expect(page.locator("h1#infra-notes")).to_be_visible()


def test_diagrams_stay_after_instant_navigation_and_a_change_of_palette(
    browser: Browser, address: str
) -> None:
    with _visit(browser, address + "/") as page:
        page.evaluate("window.sameDocument = true")
        page.locator("article a[href*='tcp-connection']").last.click()
        expect(page.locator("h1#tcp-connection")).to_be_visible()
        expect(page.locator("figure.diagram svg").first).to_be_visible()
        assert page.evaluate("window.sameDocument") is True
        for scheme in ("default", "slate"):
            page.locator("label[for^='__palette_']:visible").click()
            expect(page.locator("body")).to_have_attribute("data-md-color-scheme", scheme)
            assert checks.faint_diagrams(page) == []


def test_the_keyboard_reaches_search_navigation_and_palette(browser: Browser, address: str) -> None:
    with _visit(browser, address + _CHAPTER) as page:
        reached: set[str] = set()
        for _ in range(40):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.className"))
        seen = " ".join(reached)
        assert "md-skip" in seen
        assert "md-tabs__link" in seen
        assert "md-nav__link" in seen
        assert "md-search__input" in seen or "md-option" in seen
        page.keyboard.press("/")
        assert "md-search__input" in page.evaluate("document.activeElement.className")


def test_a_link_to_a_heading_opens_at_it(browser: Browser, address: str) -> None:
    with _visit(browser, address + _CHAPTER + "#time-wait") as page:
        expect(page.locator("#time-wait")).to_be_in_viewport()


def test_print_leaves_out_what_cannot_be_clicked(browser: Browser, address: str) -> None:
    with _visit(browser, address + _CHAPTER) as page:
        page.emulate_media(media="print")
        expect(page.locator(".md-header")).to_be_hidden()
        expect(page.locator("figure.diagram svg").first).to_be_visible()


_DOCTORED = """<!doctype html><html lang="ja"><head><title>x</title></head><body><main><article>
<h1 id="twice">題</h1><p id="twice" style="color:#999;background:#aaa">薄い</p><p id="_1">番号</p>
<div style="width:900px">はみ出す</div><img src="https://example.com/x.png">
<figure class="diagram"><svg id="dg-x" width="0" height="0"
 style="--dg-paper:#fff;--dg-node:#fff;--dg-note:#fff;--dg-group:#fff;--dg-active:#fff;--dg-line:#eee">
<text style="fill:#ddd">薄い字</text></svg></figure>
<script src="mermaid.min.js"></script></article></main></body></html>"""


def test_a_doctored_page_is_found_out(browser: Browser) -> None:
    with browser.new_context(viewport=_PHONE) as context:
        page = context.new_page()
        page.route("**/*", lambda route: route.abort())
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.set_content(_DOCTORED)
        assert checks.foreign(requests, "http://127.0.0.1") == ["https://example.com/x.png"]
        assert any("color-contrast" in found for found in checks.axe(page))
        assert any("はみ出す" in found for found in checks.overflowing(page))
        assert any("has no size" in found for found in checks.faint_diagrams(page))
        assert any("lines are faint" in found for found in checks.faint_diagrams(page))
        assert any("薄い字" in found for found in checks.faint_diagrams(page))
    assert sorted(checks.bad_ids(_DOCTORED)) == ["_1", "twice"]
    assert checks.unknown_tags("<article><p>子は<frame-1></p></article>") == ["frame-1"]
    assert checks.mermaid(_DOCTORED) == ["mermaid.min.js"]
    assert len(checks.unnamed_diagrams(_DOCTORED)) == 5


def test_an_address_lost_in_a_diagram_is_found_out() -> None:
    fence = "```mermaid\nflowchart TD\n  A[10.0.10.254]\n```\n"
    drawn = '<svg class="diagram__image"><text>10.0.10.25</text></svg>'
    assert checks.lost_addresses(fence, drawn) == ["10.0.10.254"]
