"""Every lab, as a person runs it: it proves its facts, fits its record and leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from labs.harness import mark
from labs.harness.lab import ROOT, discover
from labs.harness.waiting import until

# Labs that must not share the machine run one after the other.
_LABS = [
    pytest.param(name, marks=pytest.mark.xdist_group("alone")) if found.lab.alone else name
    for name, found in discover().items()
]
_PLACES = (
    "/var/tmp/infra-lab-{mark}*",
    "/sys/fs/cgroup/**/infra-lab-{mark}*",
    "/run/netns/*",
    "/tmp/lab",
    "/tmp/disk",
)

pytestmark = [
    pytest.mark.parametrize("name", _LABS),
    pytest.mark.skipif(sys.platform != "linux", reason="実験はLinuxで動きます"),
]


def _command(verb: str, name: str) -> list[str]:
    return [sys.executable, "-m", "labs", verb, name, "--yes", "--ci"]


def test_a_lab_proves_its_facts_and_fits_its_record(name: str) -> None:
    done = subprocess.run(_command("check", name), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def _processes() -> Iterator[Path]:
    yield from (path for path in Path("/proc").iterdir() if path.name.isdigit())


def _marked(mark: str) -> set[Path]:
    """Return the processes that carry the mark in their environment."""
    found = set()
    for process in _processes():
        with suppress(OSError):
            if mark.encode() in (process / "environ").read_bytes():
                found.add(process)
    return found


def _namespace(process: Path) -> str:
    with suppress(OSError):
        return str((process / "ns/pid").readlink())
    return ""


def _inside(spaces: set[str]) -> set[Path]:
    return {process for process in _processes() if _namespace(process) in spaces}


def _mounts(mark: str) -> set[str]:
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    return {line for line in lines if " - tmpfs lab " in line or f"infra-lab-{mark}" in line}


def _files(mark: str) -> set[Path]:
    places = [place.format(mark=mark).lstrip("/") for place in _PLACES]
    return {found for place in places for found in Path("/").glob(place)}


def _sandboxes(mark: str) -> set[str]:
    ours = {_namespace(Path("/proc/self")), ""}
    return {_namespace(process) for process in _marked(mark)} - ours


def test_a_lab_killed_in_the_middle_leaves_nothing(name: str) -> None:
    own = uuid.uuid4().hex
    files, mounts = _files(own), _mounts(own)
    lab = subprocess.Popen(
        _command("run", name),
        cwd=ROOT,
        env={**os.environ, mark.VARIABLE: own},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert lab.stdout
    any("✓" in line for line in lab.stdout)  # the first fact is proved, the others are not
    spaces = _sandboxes(own)
    lab.send_signal(signal.SIGKILL)
    lab.wait()
    until(lambda: not _marked(own) | _inside(spaces), "名前空間とプロセスが消える")
    until(lambda: _mounts(own) <= mounts and _files(own) <= files, "マウントとファイルが消える")
