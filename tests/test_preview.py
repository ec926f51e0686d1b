"""Previewing: `mkdocs serve` draws in the author's browser, from this machine alone."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection

import pytest
from playwright.sync_api import Browser, expect

from tests import checks
from tests.workshop import Workshop

_PAGE = "/os/sample/"
_PATIENCE = 60  # seconds until a preview must answer


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    try:
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/")
        return connection.getresponse().status == 200
    except OSError:
        return False


@contextmanager
def _serving(workshop: Workshop) -> Iterator[str]:
    port = _free_port()
    command = [sys.executable, "-m", "mkdocs", "serve", "--dev-addr", f"127.0.0.1:{port}"]
    environment = {**os.environ, "INFRA_NOTES_CHROMIUM": "/nonexistent"}
    with subprocess.Popen(
        command, cwd=workshop.folder, env=environment, stderr=subprocess.DEVNULL
    ) as server:
        try:
            deadline = time.monotonic() + _PATIENCE
            while not _answers(port):
                assert server.poll() is None, "mkdocs serve ended"
                assert time.monotonic() < deadline, f"no answer within {_PATIENCE} s"
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


@pytest.fixture
def preview(workshop: Workshop) -> Iterator[str]:
    """Serve the sample as an author does, on a machine without a Chromium of its own."""
    with _serving(workshop) as address:
        yield address


def test_the_authors_browser_draws_every_fence_and_asks_no_other_host(
    preview: str, browser: Browser
) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.goto(preview + _PAGE)
        expect(page.locator(".mermaid svg")).to_have_count(5)
        assert checks.foreign(requests, preview) == []
        assert any(url.endswith("/assets/mermaid.min.js") for url in requests)


def test_search_works_in_the_preview(preview: str, browser: Browser) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(preview, wait_until="load")
        page.locator(".md-search__input").click()
        with page.expect_response("**/search_index.json"):
            page.reload()
        page.locator(".md-search__input").press_sequentially("RFC")
        expect(page.locator(".md-search-result__item").first).to_contain_text("見本の章")


def test_a_saved_change_appears_without_a_reload_by_hand(
    preview: str, workshop: Workshop, browser: Browser
) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(preview + _PAGE, wait_until="load")
        workshop.replace("一文の結論です。", "書き直した結論です。")
        expect(page.locator("article")).to_contain_text("書き直した結論です。", timeout=30_000)


def test_a_mistake_is_pointed_out_and_the_preview_goes_on(workshop: Workshop) -> None:
    line = workshop.replace("accTitle: やりとり", "%% 題名を忘れた") - 3
    done = workshop.run("-m", "mkdocs", "build", INFRA_NOTES_CHROMIUM="/nonexistent")
    assert f"docs/os/sample.md:{line}: 図に題名(accTitle)がありません" in done.output
    assert done.code == 0
