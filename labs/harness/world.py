"""What a lab's functions are given: words, commands, namespaces, waiting and facts."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from labs.harness import process, waiting
from labs.harness.client import Client
from labs.harness.event import Emit, Event
from labs.harness.fact import Ledger
from labs.harness.lab import Lab
from labs.harness.network import Namespace, Network
from labs.harness.problem import LabError
from labs.harness.process import Background, Done
from labs.harness.session import Session
from labs.harness.view import View, tidy, whole

T = TypeVar("T")
DISK = Path("/tmp/disk")


class World:
    """The little world of one lab; everything it shows goes into the transcript.

    Commands run in the working directory, empty at first and gone afterwards, with `bash -c`;
    `on` runs them in a network namespace.
    """

    def __init__(self, lab: Lab, emit: Emit, folder: Path) -> None:
        """Begin with a sink for events and an empty working directory."""
        self.folder = folder
        self.network = Network(self)
        self.ledger = Ledger(lab.facts)
        self.doing = ""
        self._sink = emit
        self._end = contextlib.ExitStack()

    def _emit(self, event: Event) -> None:
        if event.kind == "command":
            self.doing = event.text
        self._sink(event)

    # Words

    def section(self, name: str, title: str) -> None:
        """Begin a part of the transcript that a chapter can include by its English name."""
        self._emit(Event("section", title, name))

    def say(self, text: str) -> None:
        """Tell the reader what is being done and why."""
        self._emit(Event("say", text))

    # Commands

    def do(
        self,
        command: str,
        on: Namespace | None = None,
        *,
        until: str = "",
        code: int | None = 0,
        show: View = whole,
    ) -> Done:
        """Run a command, show it with its output, and return what it printed.

        `until` repeats a harmless command until a regular expression matches its output, and
        shows the last time only. `code` is the exit code expected; None accepts any. `show`
        leaves something out of the transcript (never out of what is returned).
        """
        self._emit(Event("command", command, _prompt(on)))
        done = self.ask(command, on, until=until, code=code)
        self._emit(Event("output", tidy(show(done.text))))
        return done

    def ask(
        self,
        command: str,
        on: Namespace | None = None,
        *,
        until: str = "",
        code: int | None = 0,
    ) -> Done:
        """Run a command that the transcript does not show."""
        self.doing = command
        done = (
            self._repeat(command, on, until)
            if until
            else process.run(_command(command, on), self.folder)
        )
        if code is not None and done.code != code:
            message = f"終了コードが{done.code}です（期待: {code}）"
            raise LabError(f"「{command}」の{message}\n{done.text}")
        return done

    def _repeat(self, command: str, on: Namespace | None, pattern: str) -> Done:
        last: list[Done] = []

        def matches() -> bool:
            last[:] = [process.run(_command(command, on), self.folder)]
            return last[0].has(pattern)

        try:
            self.until(matches, f"「{command}」の出力に /{pattern}/ が現れる")
        except LabError as error:
            raise type(error)(f"{error}\n最後の出力:\n{last[0].text if last else ''}") from None
        return last[0]

    def set_up(self, command: str) -> None:
        """Run a command that prepares the stage; shown, without output."""
        self._emit(Event("command", command, "# "))
        self.ask(command)

    def start(self, command: str, on: Namespace | None = None) -> Background:
        """Start a command in the background; it ends with the lab at the latest."""
        self._emit(Event("command", f"{command} &", _prompt(on)))
        return self.start_unseen(command, on)

    def start_unseen(self, command: str, on: Namespace | None = None) -> Background:
        """Start a command in the background that the transcript does not show."""
        full = _command(f"exec {command}" if _is_simple(command) else command, on)
        background = Background(full, command, self.folder)
        self._end.callback(background.stop)
        return background

    def show(self, background: Background, view: View = whole) -> None:
        """Show what a background command has printed so far (without its errors)."""
        self._emit(Event("output", tidy(view(background.text))))

    def stop(
        self,
        background: Background,
        sig: signal.Signals = signal.SIGTERM,
        *,
        show: View = whole,
    ) -> Done:
        """End a background command and show what it printed (without its errors)."""
        done = background.stop(sig)
        self.show(background, show)
        return done

    def python(self, on: Namespace | None = None) -> Session:
        """Open a Python prompt; its statements and answers go into the transcript."""
        session = Session(_prefix(on), f"[{on.name}]" if on else "", self._tell, self.folder)
        self._end.callback(session.close)
        return session

    def client(self, command: str, prompt: str) -> Client:
        """Connect a database client that is driven one statement at a time."""
        client = Client(command, prompt, self._tell, self.folder)
        self._end.callback(client.close)
        return client

    def _tell(self, prompt: str, text: str) -> None:
        if prompt:
            self._emit(Event("command", text, prompt))
        elif text:
            self._emit(Event("output", text))

    def file(self, name: str, text: str, *, unseen: bool = False) -> Path:
        """Write a file into the working directory and show it."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        if not unseen:
            self._emit(Event("file", text.rstrip("\n"), name))
        return path

    @property
    def disk(self) -> Path:
        """Return an empty directory on a real disk, gone afterwards (`Lab(disk=True)`)."""
        if not DISK.is_dir():
            raise LabError("LABにdisk=Trueがありません")
        return DISK

    # Waiting and undoing

    def until(
        self, condition: Callable[[], T | None], what: str, limit: float = waiting.LIMIT
    ) -> T:
        """Return the first true value of `condition`; `what` names it when it never comes."""
        return waiting.until(condition, what, limit)

    def undo(self, command: str) -> None:
        """Have a command run at the end, on an error and on Ctrl-C too, last given first."""
        self._end.callback(lambda: process.run(_command(command, None), self.folder))

    def close(self) -> None:
        """End what is in the background and undo what is to be undone."""
        self._end.close()

    # Facts

    def fact(self, fact: str, holds: object, *, seen: str) -> None:
        """Prove a fact: `holds` must be true; `seen` is what was measured."""
        self.ledger.tell(fact, holds=bool(holds))
        self._emit(Event("fact", seen, fact, good=bool(holds)))

    def control(self, fact: str, holds: object, *, why: str, seen: str) -> None:
        """Try a fact where its cause is gone: `holds` must be false, which `why` explains."""
        self.ledger.doubt(fact, holds=bool(holds))
        self._emit(Event("control", seen, fact, good=not holds, why=why))

    def name(self, kind: str, *values: object) -> None:
        """Tell the normaliser that values (a PID, a port…) change from run to run."""
        for value in values:
            self._emit(Event("name", str(value), kind))


def _prompt(on: Namespace | None) -> str:
    return f"[{on.name}]# " if on else "$ "


def _prefix(on: Namespace | None) -> list[str]:
    return on.prefix if on else []


def _command(command: str, on: Namespace | None) -> list[str]:
    return [*_prefix(on), "bash", "-c", command]


def _is_simple(command: str) -> bool:
    return not set(command) & set("|;&(){}<>")
