"""The sandbox from inside: PID 1 reaps, its child prepares the stage and runs the lab."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from labs.harness.event import Emit, Event
from labs.harness.lab import Experiment, discover
from labs.harness.problem import InterruptedLabError, LabError, TimeLimitError
from labs.harness.world import DISK, World

_STAGE = Path("/tmp/lab")
_FIRST_PID = "7000"  # four digits, unlike the sizes that labs print
_UNDOING = 10


_HEARD: dict[signal.Signals, signal.Handlers | Callable[[int, FrameType | None], object]] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGQUIT: signal.SIG_DFL,
    signal.SIGHUP: signal.SIG_DFL,
}


def as_init(main: Callable[[], int]) -> None:
    """Be PID 1: reap every child, end with `main`, and pass on a wish to stop (end of input)."""
    child = 0

    def reap(_signal: int, _frame: FrameType | None) -> None:
        for pid, status in _ended():
            if pid == child:
                os._exit(os.waitstatus_to_exitcode(status) & 255)

    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    signal.signal(signal.SIGCHLD, reap)
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        os._exit(main())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
    _pass_on_the_wish_to_stop(child)


def _ended() -> Iterator[tuple[int, int]]:
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            yield ended


def _pass_on_the_wish_to_stop(child: int) -> None:
    while os.read(0, 1024):
        pass
    os.kill(child, signal.SIGTERM)
    signal.signal(signal.SIGALRM, lambda *_: os._exit(1))
    signal.alarm(_UNDOING)
    while True:
        signal.pause()


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def set_the_stage(disk: str) -> None:
    """Hide /run and /tmp behind empty ones, and begin with the same names and numbers."""
    descriptor = os.open(disk, os.O_PATH) if disk else -1
    for folder in ("/run", "/tmp"):
        _mount("-t", "tmpfs", "-o", "mode=1777", "lab", folder)
    _STAGE.mkdir()
    if disk:
        DISK.mkdir()
        _mount("--rbind", f"/proc/{os.getpid()}/fd/{descriptor}", str(DISK))
    os.chdir(_STAGE)
    socket.sethostname("lab")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with contextlib.suppress(OSError):
        Path("/proc/sys/kernel/ns_last_pid").write_text(_FIRST_PID)


def _give_up(_signal: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise InterruptedLabError("止めるように頼まれました")


@contextlib.contextmanager
def _limited(world: World, seconds: int) -> Iterator[None]:
    def too_long(_signal: int, _frame: FrameType | None) -> None:
        limit = f"{seconds}秒の制限時間を超えました"
        raise TimeLimitError(f"{limit}。待っていたもの: {world.doing}")

    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


@contextlib.contextmanager
def _telling(emit: Emit) -> Iterator[None]:
    try:
        yield
    except LabError as error:
        emit(Event("error", str(error)))
    except Exception:  # a lab's own mistake, shown whole
        emit(Event("error", traceback.format_exc().rstrip()))


def probe(experiment: Experiment, emit: Emit) -> bool:
    """Try what the lab needs; tell what is missing."""
    missing = [need for need in experiment.lab.needs if not need.met()]
    for need in missing:
        emit(Event("skip", need.cure, need.name))
    return not missing


def perform(experiment: Experiment, part: str, emit: Emit) -> None:
    """Run one part of a lab, and end everything it began."""
    world = World(experiment.lab, emit, _STAGE)
    with _telling(emit), contextlib.closing(world), _limited(world, experiment.lab.limit):
        if part == "run":
            experiment.run(world)
            world.network.check(experiment.lab.topology)
            world.ledger.close_run()
        else:
            experiment.control(world)
            world.ledger.close_control()


def _emitter(channel: int) -> Emit:
    def emit(event: Event) -> None:
        data = event.encode()
        while data:
            data = data[os.write(channel, data) :]

    return emit


def _hear_signals() -> None:
    """Undo what nohup or a background job of a script ignores: experiments send signals."""
    for number, handler in _HEARD.items():
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)


def main(name: str, part: str, channel: str, disk: str = "") -> int:
    """Run one part of the named lab here, where PID 1 is our parent."""
    experiment = discover()[name]
    emit = _emitter(int(channel))
    signal.signal(signal.SIGTERM, _give_up)
    _hear_signals()
    with _telling(emit):
        set_the_stage(disk)
        if probe(experiment, emit) and part != "needs":
            perform(experiment, part, emit)
    emit(Event("end"))
    return 0


if __name__ == "__main__":
    as_init(lambda: main(*sys.argv[1:]))
