"""A Python prompt that a lab drives one statement at a time, in a namespace if need be."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from labs.harness.problem import LabError
from labs.harness.process import environment

_NONE = "例外なし"
_PROMPT = """
import ast, contextlib, io, json, os, sys, traceback
answers = os.fdopen(os.dup(1), "w")
names = {"__name__": "__main__"}
for line in sys.stdin:
    out, error = io.StringIO(), ""
    with contextlib.redirect_stdout(out):
        try:
            for node in ast.parse(json.loads(line)).body:
                single = ast.Interactive([node])
                exec(compile(single, "<lab>", "single"), names)
        except BaseException as problem:
            error = "".join(traceback.format_exception_only(problem)).strip()
    print(json.dumps([out.getvalue(), error]), file=answers, flush=True)
"""


@dataclass(frozen=True)
class Answer:
    """What a statement printed, and the exception that ended it (its last line), if any."""

    text: str
    error: str

    @property
    def shown(self) -> str:
        """Return what a reader sees at a real prompt, without the traceback."""
        return "\n".join(part for part in (self.text.rstrip("\n"), self.error) if part)


Told = Callable[[str, str], None]


class Session:
    """A Python interpreter; statements go in, answers come out, both into the transcript."""

    def __init__(self, prefix: Sequence[str], prompt: str, tell: Told, folder: Path) -> None:
        """Start the interpreter behind a command prefix, in a folder."""
        self._prompt, self._tell = f"{prompt}>>> ", tell
        self._process = subprocess.Popen(
            [*prefix, "python3", "-u", "-c", _PROMPT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(folder),
            cwd=folder,
            text=True,
        )

    @property
    def pid(self) -> int:
        """Return the interpreter's process id (inside the sandbox)."""
        return self._process.pid

    def __call__(self, source: str, raises: str = "") -> str:
        """Run a statement and return what it printed; `raises` names an expected exception.

        Raises:
            LabError: when another exception came, or none although one was expected.

        """
        self.begin(source)
        return self.finish(raises)

    def begin(self, source: str) -> None:
        """Send a statement that may block; `finish` waits for its answer."""
        self._tell(self._prompt, source)
        self._send(source)

    def finish(self, raises: str = "") -> str:
        """Wait for the answer of the statement sent last."""
        answer = self._receive()
        self._tell("", answer.shown)
        _judge(answer, raises)
        return answer.shown

    def ask(self, source: str) -> str:
        """Run a statement that the transcript does not show."""
        self._send(source)
        answer = self._receive()
        _judge(answer, "")
        return answer.text.rstrip("\n")

    def _send(self, source: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(source) + "\n")
        self._process.stdin.flush()

    def _receive(self) -> Answer:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise LabError(f"Pythonの対話（PID {self.pid}）が終わってしまいました")
        return Answer(*json.loads(line))

    def close(self) -> None:
        """End the interpreter."""
        self._process.kill()
        self._process.communicate()


def _judge(answer: Answer, raises: str) -> None:
    name = answer.error.partition(":")[0].rpartition(".")[2]
    if name != raises:
        came, expected = answer.error or _NONE, raises or _NONE
        raise LabError(f"Pythonの文の結果が違います: {came}（期待: {expected}）")
