"""The Chromium that draws diagrams and drives tests: found, or the way to get one."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

VARIABLE = "INFRA_NOTES_CHROMIUM"
CURE = f"「make browser」で用意するか、環境変数{VARIABLE}に実行ファイルの場所を入れてください"

_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
_MAC = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
_PLAYWRIGHT = (
    Path.home() / ".cache/ms-playwright",
    Path.home() / "Library/Caches/ms-playwright",
)
_PLAYWRIGHT_GLOBS = (
    "chromium-*/chrome-linux*/chrome",
    "chromium-*/chrome-mac*/*.app/Contents/MacOS/*",
)
# Headless, and silent on the network: nothing but the page asked for is loaded.
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class NoChromiumError(RuntimeError):
    """No Chromium on this machine; the message carries the cure."""


def _on_path() -> list[str]:
    return [found for name in _NAMES if (found := shutil.which(name))]


def _from_playwright() -> list[str]:
    found = (p for root in _PLAYWRIGHT for glob in _PLAYWRIGHT_GLOBS for p in root.glob(glob))
    return sorted(map(str, found), reverse=True)


def find() -> str | None:
    """Return the path of a Chromium: the one named, on the machine, or Playwright's."""
    named = os.environ.get(VARIABLE)
    if named:
        return named if Path(named).is_file() else None
    installed = [*_on_path(), *(p for p in _MAC if Path(p).is_file()), *_from_playwright()]
    return next(iter(installed), None)


def require() -> str:
    """Return the path of a Chromium.

    Raises:
        NoChromiumError: when there is none.

    """
    path = find()
    if not path:
        raise NoChromiumError(f"図を描くChromiumが見つかりません。{CURE}")
    return path


def _run(page: Path, seconds: int, *flags: str) -> str:
    """Open a local page; return what Chromium printed."""
    with tempfile.TemporaryDirectory() as profile:
        command = [
            require(),
            *FLAGS,
            f"--user-data-dir={profile}",
            *flags,
            page.as_uri(),
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
        except subprocess.TimeoutExpired as slow:
            raise NoChromiumError(f"Chromiumが{seconds}秒以内に終わりませんでした") from slow
    return done.stdout


def dump_dom(page: Path, *, seconds: int = 300) -> str:
    """Return the DOM of a local page after its scripts came to rest.

    Raises:
        NoChromiumError: when there is no Chromium, or it does not finish in `seconds`.

    """
    return _run(page, seconds, f"--virtual-time-budget={seconds * 1000}", "--dump-dom")


def print_pdf(page: Path, path: Path, *, seconds: int = 900) -> None:
    """Print a local page with its outline; its own style gives size and margins.

    Raises:
        NoChromiumError: when there is no Chromium, or it does not finish in `seconds`.

    """
    flags = ("--no-pdf-header-footer", "--generate-pdf-document-outline")
    path.unlink(missing_ok=True)
    _run(page, seconds, *flags, f"--print-to-pdf={path.absolute()}")
    if not path.is_file():
        raise NoChromiumError("ChromiumがPDFを返しませんでした。もう一度実行してください")
