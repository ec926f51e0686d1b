"""The exit door: Zensical builds the same sources and keeps every published link."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from scripts import permalinks
from tests.workshop import ROOT

_ZENSICAL = ROOT / ".venv-zensical/bin/zensical"
_SOURCES = ("docs", "includes", "labs", "overrides")


@pytest.fixture(scope="module")
def beyond(tmp_path_factory: pytest.TempPathFactory) -> permalinks.Site:
    """Build a copy of the whole site with Zensical."""
    assert _ZENSICAL.is_file(), "Zensicalがありません。「make test」で用意してください"
    folder = tmp_path_factory.mktemp("zensical")
    for name in _SOURCES:
        shutil.copytree(ROOT / name, folder / name)
    shutil.copyfile(ROOT / "mkdocs.yml", folder / "mkdocs.yml")
    done = subprocess.run([_ZENSICAL, "build"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return permalinks.read_site(folder / "site")


def _lost(site: permalinks.Site, links: list[str]) -> list[str]:
    return [str(problem) for problem in permalinks.lost(site, links)]


@pytest.mark.xdist_group("zensical")
def test_zensical_keeps_every_published_link(beyond: permalinks.Site) -> None:
    assert _lost(beyond, permalinks.read_list(ROOT / permalinks.FILE)) == []


@pytest.mark.xdist_group("zensical")
def test_a_link_that_zensical_would_lose_is_named(beyond: permalinks.Site) -> None:
    found = _lost(beyond, ["/", "/os/never-written/", "/os/virtual-memory/#never-there"])
    assert found[0].startswith("permalinks.txt:2: 公開済みのリンク /os/never-written/ が失われます")
    assert found[1].startswith("permalinks.txt:3: 公開済みのリンク /os/virtual-memory/#never-there")


def test_the_copy_holds_what_the_configuration_names() -> None:
    assert all(Path(ROOT / name).is_dir() for name in _SOURCES)
