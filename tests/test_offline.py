"""The offline copy: opened as files, with search, diagrams and links, and no network."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from scripts.offline import NAME, ZIP, pack
from tests.workshop import ROOT


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack the copy that `make offline` made."""
    assert (ROOT / ZIP).is_file(), "オフライン版がありません。「make offline」で作れます"
    folder = tmp_path_factory.mktemp("offline")
    with zipfile.ZipFile(ROOT / ZIP) as archive:
        archive.extractall(folder)
    return folder / NAME


@pytest.fixture
def home(unpacked: Path, browser: Browser) -> Iterator[Page]:
    """Open the copy's first page without a network; fail on any request for one."""
    with browser.new_context(offline=True) as context:
        page = context.new_page()
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.goto((unpacked / "index.html").as_uri())
        yield page
        assert [url for url in requests if url.startswith("http")] == []


def test_search_finds_and_opens_a_page(home: Page) -> None:
    home.locator(".md-search__input").click()
    home.locator(".md-search__input").press_sequentially("ぞんび")
    expect(home.locator(".md-search-result__item").first).to_contain_text("プロセス")
    home.keyboard.press("Enter")
    expect(home.locator("h1#process-lifecycle")).to_be_visible()


def test_a_chapter_shows_its_diagrams(home: Page) -> None:
    home.locator("article a[href*='tcp-connection']").first.click()
    expect(home.locator("h1#tcp-connection")).to_be_visible()
    expect(home.locator("figure.diagram svg").first).to_be_visible()


def test_the_same_folder_packs_to_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x/a.txt").write_text("a", encoding="utf-8")
    pack(tmp_path / "x", tmp_path / "1.zip")
    pack(tmp_path / "x", tmp_path / "2.zip")
    assert (tmp_path / "1.zip").read_bytes() == (tmp_path / "2.zip").read_bytes()
    (tmp_path / "x/a.txt").write_text("b", encoding="utf-8")
    pack(tmp_path / "x", tmp_path / "2.zip")
    assert (tmp_path / "1.zip").read_bytes() != (tmp_path / "2.zip").read_bytes()
