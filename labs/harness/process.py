"""Commands of a lab: run to their end, or started in the background and always ended."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from labs.harness.problem import LabError
from labs.harness.waiting import LIMIT, until

_GRACE = 3.0
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "TERM": "dumb",
    "PYTHONDONTWRITEBYTECODE": "1",
}


@dataclass(frozen=True)
class Done:
    """A command that ended: what it printed and its exit code, as a shell shows it.

    The text of a command run to its end includes its errors; a background command keeps them
    apart.
    """

    text: str
    code: int
    errors: str = ""

    @property
    def lines(self) -> list[str]:
        """Return the lines of the output."""
        return self.text.splitlines()

    def find(self, pattern: str) -> re.Match[str]:
        """Return the first match of a regular expression in the output.

        Raises:
            LabError: when there is none; it shows the output.

        """
        found = re.search(pattern, self.text, re.M)
        if not found:
            raise LabError(f"出力に /{pattern}/ が見つかりません:\n{self.text}")
        return found

    def has(self, pattern: str) -> bool:
        """Return whether a regular expression matches in the output."""
        return bool(re.search(pattern, self.text, re.M))

    def all(self, pattern: str) -> list[str]:
        """Return every match of a regular expression (of its group, if it has one)."""
        return re.findall(pattern, self.text, re.M)


def shell_code(code: int) -> int:
    """Return an exit code as a shell shows it."""
    return 128 - code if code < 0 else code


def run(command: Sequence[str], folder: Path) -> Done:
    """Run a command to its end in a folder."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment(folder),
        cwd=folder,
    )
    return Done(done.stdout, shell_code(done.returncode))


def environment(folder: Path) -> dict[str, str]:
    """Return the same environment for every command, whoever runs the lab."""
    return {**_ENVIRONMENT, "HOME": str(folder)}


class Background:
    """A command in the background, leader of its own session, with its output in files."""

    def __init__(self, command: Sequence[str], shown: str, folder: Path) -> None:
        """Start the command in a folder; its output goes beside it."""
        outputs = folder.parent / f"{folder.name}.background"
        outputs.mkdir(exist_ok=True)
        number = len(list(outputs.iterdir())) // 2
        self.shown = shown
        self._out, self._err = outputs / f"{number}.out", outputs / f"{number}.err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=environment(folder),
                cwd=folder,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Return the process id (inside the sandbox)."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Return whether the command has not ended."""
        return self._process.poll() is None

    @property
    def text(self) -> str:
        """Return the standard output so far."""
        return self._out.read_text(errors="replace")

    @property
    def errors(self) -> str:
        """Return the standard error so far."""
        return self._err.read_text(errors="replace")

    @property
    def lines(self) -> list[str]:
        """Return the whole lines of the standard output so far."""
        return self.text[: self.text.rfind("\n") + 1].splitlines()

    def wait_for(self, pattern: str, limit: float = LIMIT) -> re.Match[str]:
        """Wait until a regular expression matches in the output or the errors."""
        what = f"「{self.shown}」の出力に /{pattern}/ が現れる"
        return until(lambda: self._match(pattern), what, limit)

    def _match(self, pattern: str) -> re.Match[str] | None:
        found = re.search(pattern, self.text + self.errors, re.M)
        if not found and not self.running:
            raise LabError(f"「{self.shown}」が終わってしまいました:\n{self.text}{self.errors}")
        return found

    def wait(self, limit: float = LIMIT) -> Done:
        """Wait until the command ends by itself."""
        until(lambda: not self.running, f"「{self.shown}」が終わる", limit)
        return Done(self.text, shell_code(self._process.returncode), self.errors)

    def stop(self, sig: signal.Signals = signal.SIGTERM) -> Done:
        """End the command and everything it started; harmless when it has ended."""
        self._signal(sig)
        self._signal(signal.SIGCONT)  # one that is stopped would not notice
        if self._still_there(_GRACE):
            self._signal(signal.SIGKILL)
            self._process.wait()
        return Done(self.text, shell_code(self._process.returncode), self.errors)

    def _signal(self, sig: signal.Signals) -> None:
        if self.running:
            _quietly(lambda: os.killpg(self.pid, sig))

    def _still_there(self, limit: float) -> bool:
        try:
            self._process.wait(limit)
        except subprocess.TimeoutExpired:
            return True
        return False


def _quietly(action: Callable[[], None]) -> None:
    try:
        action()
    except ProcessLookupError:
        return
