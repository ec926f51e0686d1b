"""Pin every dependency of pyproject.toml with hashes, naming no registry."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

_UV = (
    *(sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal"),
    *("--generate-hashes", "--no-emit-index-url", "--no-header", "--python-version", "3.11"),
)
_NPM = Path("package-lock.json")
_LOCKS = {
    "requirements.txt": ["pyproject.toml"],
    "requirements-test.txt": ["--group", "test", "--constraints", "requirements.txt"],
    "requirements-zensical.txt": ["--group", "zensical"],
}


def _without_addresses() -> None:
    """Take sponsors' addresses out of npm's lock: they install nothing."""
    lock = json.loads(_NPM.read_text(encoding="utf-8"))
    for package in lock["packages"].values():
        package.pop("funding", None)
    _NPM.write_text(json.dumps(lock, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    """Write the lock files, each on top of those before it."""
    _without_addresses()
    for name, inputs in _LOCKS.items():
        subprocess.run([*_UV, *inputs, "--output-file", name], check=True)


if __name__ == "__main__":
    main()
