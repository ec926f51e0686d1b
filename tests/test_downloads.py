"""The home page offers the whole site as files only when the files are there."""

from __future__ import annotations

import pytest

from tests.workshop import Workshop

_FILES = ("infra-notes.pdf", "infra-notes-offline.zip")


@pytest.fixture
def home(workshop: Workshop) -> Workshop:
    """Give a project whose home page has the place for them."""
    workshop.write("docs/index.md", workshop.read("docs/index.md") + "\n<!-- downloads -->\n")
    return workshop


def _make(workshop: Workshop, *names: str) -> None:
    (workshop.folder / "dist").mkdir()
    for name in names:
        (workshop.folder / "dist" / name).write_bytes(b"x" * 3 * 1024 * 1024)


def test_both_files_are_offered_with_size_and_date(home: Workshop) -> None:
    _make(home, *_FILES)
    assert home.build().code == 0
    page = home.read("site/index.html")
    for name in _FILES:
        assert f'href="downloads/{name}"' in page
        assert (home.folder / "site/downloads" / name).is_file()
    assert page.count("3.0 MiB、20") == len(_FILES)


def test_nothing_is_offered_while_one_is_missing(home: Workshop) -> None:
    _make(home, _FILES[0])
    assert home.build().code == 0
    assert "downloads/" not in home.read("site/index.html")
    assert not (home.folder / "site/downloads").exists()
