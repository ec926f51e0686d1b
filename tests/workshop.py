"""A small copy of the project, with one made-up chapter, that a test may break and build."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
CHAPTER = "docs/os/sample.md"
_HOME = """---
title: 見本
description: 検査のための最初のページです。
---

# 見本 {#home}
"""
_NAV = """nav:
  - 見本: index.md
  - OS:
      - os/sample.md
  - 実験: [labs/index.md, labs/setup.md]

"""


@dataclass(frozen=True)
class Outcome:
    """How a build ended, and everything it said."""

    code: int
    output: str


@dataclass(frozen=True)
class Workshop:
    """A copy of the project in a folder of its own."""

    folder: Path

    def read(self, path: str) -> str:
        """Return a file's text."""
        return (self.folder / path).read_text(encoding="utf-8")

    def write(self, path: str, text: str) -> None:
        """Write a file."""
        (self.folder / path).write_text(text, encoding="utf-8")

    def replace(self, old: str, new: str, path: str = CHAPTER) -> int:
        """Replace the first `old` and return the line it stood on."""
        text = self.read(path)
        assert old in text, f"{old!r} does not stand in {path}"
        self.write(path, text.replace(old, new, 1))
        return text[: text.index(old)].count("\n") + 1

    def run(self, *arguments: str, **environment: str) -> Outcome:
        """Run Python in the copy."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env={**os.environ, "NO_MKDOCS_2_WARNING": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return Outcome(done.returncode, done.stdout)

    def build(self, **environment: str) -> Outcome:
        """Build for publishing, as `make build` does."""
        return self.run("-m", "scripts.build", **environment)

    def record(self) -> Outcome:
        """Record the permalinks, as `make permalinks` does."""
        command = ("-m", "mkdocs", "build", "--quiet", "--site-dir", ".cache/permalinks")
        return self.run(*command, INFRA_NOTES_PERMALINKS="record")


def open_workshop(folder: Path) -> Workshop:
    """Lay out a copy that builds."""
    for name in ("includes", "overrides", "docs/assets", "scripts/hooks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "tests/data/labs", folder / "labs")
    (folder / "docs/os").mkdir()
    (folder / "docs/labs").mkdir()
    shutil.copyfile(ROOT / "docs/labs/setup.md", folder / "docs/labs/setup.md")
    shutil.copyfile(ROOT / "tests/data/chapter.md", folder / CHAPTER)
    workshop = Workshop(folder)
    workshop.write("docs/index.md", _HOME)
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    workshop.write("mkdocs.yml", re.sub(r"^nav:\n.*?\n\n", _NAV, config, flags=re.M | re.S))
    recorded = workshop.record()
    assert recorded.code == 0, recorded.output
    _commit(folder)
    return workshop


def _commit(folder: Path) -> None:
    """Give the pages a date of their own: without one they bear the second of the build."""
    who = ("-c", "user.name=見本", "-c", "user.email=sample@example.com")
    steps = (("init", "-q"), ("add", "docs"), (*who, "commit", "-q", "-m", "sample"))
    for step in steps:
        subprocess.run(["git", *step], cwd=folder, check=True)
