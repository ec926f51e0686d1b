"""A database client (psql, mariadb) that a lab drives one statement at a time."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from labs.harness.problem import LabError
from labs.harness.process import environment

_MARK = "<<answered>>"


class Client:
    r"""One connection; statements go in, answers come out, both into the transcript.

    The client must know `\\!` and flush what it prints before it runs that command.
    """

    def __init__(
        self, command: str, prompt: str, tell: Callable[[str, str], None], folder: Path
    ) -> None:
        """Start the client in a folder; `prompt` stands before each statement."""
        self._command, self._prompt, self._tell = command, prompt, tell
        self._process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment(folder),
            cwd=folder,
            text=True,
            errors="replace",
        )

    def __call__(self, statement: str) -> str:
        """Run a statement and return what the client printed, errors included."""
        self.begin(statement)
        return self.finish()

    def begin(self, statement: str) -> None:
        """Send a statement that may wait for a lock; `finish` waits for its answer."""
        self._tell(self._prompt, statement)
        assert self._process.stdin
        self._process.stdin.write(f"{statement}\n\\! echo '{_MARK}'\n")
        self._process.stdin.flush()

    def finish(self) -> str:
        """Wait for the answer of the statement sent last."""
        assert self._process.stdout
        lines: list[str] = []
        while (line := self._process.stdout.readline().rstrip("\n")) != _MARK:
            if self._process.poll() is not None and not line:
                raise LabError(f"「{self._command}」が終わってしまいました:\n" + "\n".join(lines))
            lines.append(line)
        answer = "\n".join(lines)
        self._tell("", answer)
        return answer

    def close(self) -> None:
        """End the client; its server rolls back what is open."""
        self._process.kill()
        self._process.communicate()
