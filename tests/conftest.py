"""What tests share: the published site, a browser, and a project to break."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from scripts.driver import driven
from scripts.server import serving
from tests.workshop import ROOT, Workshop, open_workshop


@pytest.fixture(scope="session")
def site() -> Path:
    """Give the published site."""
    folder = ROOT / "site"
    assert folder.is_dir(), "公開用のサイトがありません。先に「make build」を実行してください"
    return folder


@pytest.fixture(scope="session")
def address(site: Path) -> Iterator[str]:
    """Serve the published site."""
    with serving(site) as address:
        yield address


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Give one Chromium a worker."""
    with driven() as browser:
        yield browser


@pytest.fixture(scope="session")
def good_copy(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Lay out a copy of the project once a worker."""
    return open_workshop(tmp_path_factory.mktemp("good"))


@pytest.fixture
def workshop(good_copy: Workshop, tmp_path: Path) -> Workshop:
    """Give a fresh copy to break."""
    shutil.copytree(good_copy.folder, tmp_path / "copy")
    return Workshop(tmp_path / "copy")
