"""The sandbox from outside: a process in namespaces of its own that vanishes with us."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from labs.harness import mark
from labs.harness.event import Event, decode
from labs.harness.lab import ROOT, Experiment
from labs.harness.problem import LabError

_UNSHARE = ["unshare", "--mount", "--net", "--pid", "--fork", "--ipc", "--uts"]
_CLEAN = ["--mount-proc", "--kill-child"]
_ROOTLESS = ["--user", "--map-current-user", "--keep-caps"]
_DIE_WITH_US = ["setpriv", "--pdeathsig", "KILL"]
_UNDOING = 15.0
_JANITOR = 'read -r _; until rm -rf -- "$1"; do sleep 0.1; done'


def as_root() -> bool:
    """Return whether we are root and need no user namespace."""
    return os.geteuid() == 0


def whose_rights() -> str:
    """Say which rights labs run with."""
    return "root" if as_root() else "一般利用者（ユーザー名前空間）"


def cure() -> str:
    """Return why no sandbox can be made and what helps, or nothing when one can."""
    done = subprocess.run([*_command(), "true"], capture_output=True, text=True)
    if done.returncode == 0:
        return ""
    return (
        "sudo を付けて動かしてください（このカーネルは一般利用者の名前空間を許していません: "
        f"{done.stderr.strip()}）"
    )


def _command() -> list[str]:
    return [*_UNSHARE, *([] if as_root() else _ROOTLESS), *_CLEAN]


def _full(experiment: Experiment, part: str, channel: int, disk: str) -> list[str]:
    die = [] if experiment.lab.machine_wide else _DIE_WITH_US
    inside = [sys.executable, "-m", "labs.harness.inside", experiment.id, part, str(channel), disk]
    return [*die, *_command(), *inside]


class Sandbox:
    """One part of a lab (`run`, `control` or `needs`) in its sandbox."""

    def __init__(self, experiment: Experiment, part: str) -> None:
        """Start it; a machine-wide lab is left alive long enough to undo what it did."""
        self._experiment, self._files = experiment, contextlib.ExitStack()
        reading, writing = os.pipe()
        self._events = self._files.enter_context(os.fdopen(reading, "rb"))
        self._errors = self._files.enter_context(tempfile.TemporaryFile("w+"))  # noqa: SIM115
        disk = _disk(self._files) if experiment.lab.disk else ""
        self._process = subprocess.Popen(
            _full(experiment, part, writing, disk),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=self._errors,
            stderr=self._errors,
            pass_fds=[writing],
            start_new_session=True,
        )
        os.close(writing)

    def events(self) -> Iterator[Event]:
        """Yield what happens, as it happens; an error when the sandbox ends without an end."""
        watchdog = threading.Timer(self._experiment.lab.limit + _UNDOING, self.kill)
        watchdog.daemon = True
        watchdog.start()
        last = ""
        for line in self._events:
            if line.endswith(b"\n"):  # not cut off by a sudden end
                event = decode(line)
                last = event.kind
                yield event
        watchdog.cancel()
        self._process.wait()
        if last != "end":
            yield Event("error", f"途中で終わりました\n{self._said()}".rstrip())

    def _said(self) -> str:
        self._errors.seek(0)
        return self._errors.read()

    def stop(self) -> None:
        """Ask the lab to stop, let it undo what it did, then end whatever is left."""
        assert self._process.stdin
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_UNDOING)
        self.kill()

    def kill(self) -> None:
        """End the sandbox at once; the kernel takes everything in it away."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Let go of the sandbox's files."""
        self.stop()
        self._files.close()


def _disk(files: contextlib.ExitStack) -> str:
    """Make a directory on a real disk, with a janitor that outlives us and removes it."""
    folder = tempfile.mkdtemp(prefix=mark.prefix(), dir=_real_disk())
    janitor = subprocess.Popen(
        ["sh", "-c", _JANITOR, "janitor", folder], stdin=subprocess.PIPE, start_new_session=True
    )
    files.callback(janitor.communicate)
    return folder


def _real_disk() -> str:
    for folder in ("/var/tmp", str(Path.home()), str(ROOT)):
        if os.access(folder, os.W_OK) and _type(folder) not in {"tmpfs", "ramfs", "overlayfs"}:
            return folder
    raise LabError("ディスクの上に書けるディレクトリーがありません（/var/tmp がtmpfsです）")


def _type(folder: str) -> str:
    command = ["stat", "--file-system", "--format=%T", folder]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()
