"""Make sure of what tests want of the machine: a Chromium, Japanese fonts, prose to search."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from scripts import chromium, setup
from scripts.driver import NODE

_FONTS = "fonts-noto-cjk"
_PROSE = "debian-reference-ja"  # what tests/corpus.py mixes into the search index


def _runs(path: str) -> bool:
    """Try it: a file that is there may still not start."""
    command = [path, *chromium.FLAGS, "--dump-dom", "about:blank"]
    try:
        return subprocess.run(command, capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _usable() -> bool:
    path = chromium.find()
    return path is not None and _runs(path)


def _from_playwright() -> None:
    setup.say("PlaywrightのChromiumを入れます")
    command = [sys.executable, "-m", "playwright", "install", "chromium"]
    subprocess.run(command, env={**os.environ, **NODE})


def _has_japanese_fonts() -> bool:
    if sys.platform == "darwin":
        return True
    if not shutil.which("fc-list"):
        return False
    listed = subprocess.run(["fc-list", ":lang=ja", "family"], capture_output=True, text=True)
    return "CJK" in listed.stdout or "Noto Sans JP" in listed.stdout


def ensure() -> str:
    """Return the path of a Chromium that starts, installing one where needed."""
    if not _usable():
        _from_playwright()
    if not _usable():
        setup.apt(["chromium"])
    if not _has_japanese_fonts():
        setup.apt([_FONTS, "fontconfig"])
    if setup.root_on_debian() and not Path("/usr/share/debian-reference").is_dir():
        setup.apt([_PROSE])
    return chromium.require()


if __name__ == "__main__":
    print(f"Chromium: {ensure()}")
