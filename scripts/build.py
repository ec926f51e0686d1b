"""Build the site for publishing: whole into site/, or not at all."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from scripts import publishing

SITE = Path("site")
PART = Path(".cache/site-part")


def build(part: Path = PART, **environment: str) -> int:
    """Run MkDocs strictly into `part` for publishing; return its exit code."""
    shutil.rmtree(part, ignore_errors=True)
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--site-dir",
        str(part),
    ]
    given = {publishing.VARIABLE: "1", "NO_MKDOCS_2_WARNING": "1", **environment}
    return subprocess.run(command, env={**os.environ, **given}).returncode


def main() -> int:
    """Replace site/ only after a build that went through."""
    code = build()
    if code:
        print("公開用のサイトは作られませんでした。上の行を直して、もう一度実行してください")
        return code
    shutil.rmtree(SITE, ignore_errors=True)
    PART.rename(SITE)
    print(f"公開用のサイトを {SITE}/ に作りました")
    return 0


if __name__ == "__main__":
    sys.exit(main())
