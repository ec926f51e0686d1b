"""Pin every dependency of pyproject.toml with hashes, naming no registry."""

from __future__ import annotations

import subprocess
import sys

_UV = (
    *(sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal"),
    *("--generate-hashes", "--no-emit-index-url", "--no-header", "--python-version", "3.11"),
)
_LOCKS = {
    "requirements.txt": ["pyproject.toml"],
    "requirements-test.txt": ["--group", "test", "--constraints", "requirements.txt"],
    "requirements-zensical.txt": ["--group", "zensical"],
}


def main() -> None:
    """Write the lock files, each on top of those before it."""
    for name, inputs in _LOCKS.items():
        subprocess.run([*_UV, *inputs, "--output-file", name], check=True)


if __name__ == "__main__":
    main()
