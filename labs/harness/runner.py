"""Runs labs: one after the other and live, or side by side and each told whole."""

from __future__ import annotations

import io
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from labs.harness import sandbox
from labs.harness.event import Event
from labs.harness.lab import Experiment
from labs.harness.outcome import Outcome, Verdict
from labs.harness.report import Report

_PARTS = ("run", "control")
_running: set[sandbox.Sandbox] = set()
_printing = threading.Lock()


def _watch(box: sandbox.Sandbox, events: list[Event], report: Report) -> None:
    _running.add(box)
    try:
        for event in box.events():
            events.append(event)
            report.tell(event)
    finally:
        _running.discard(box)
        box.close()


def stop_all() -> None:
    """Stop every lab that is running, letting it undo what it did."""
    for box in list(_running):
        box.stop()


def _refusal(experiment: Experiment, *, yes: bool) -> str:
    """Return the cure for what keeps the lab from starting here, or nothing."""
    lab = experiment.lab
    if lab.root and not sandbox.as_root():
        return f"sudo python3 -m labs run {experiment.id}"
    if reason := lab.unfit() if lab.machine_wide else "":
        return reason
    if lab.machine_wide and not yes and not _agreed(experiment):
        return f"マシン全体に触れてよければ --yes を付けてください: labs run {experiment.id} --yes"
    return sandbox.cure()


def _agreed(experiment: Experiment) -> bool:
    if not sys.stdin.isatty():
        return False
    question = f"{experiment.id} はマシン全体に触れ、終わると元に戻します。動かしますか [y/N] "
    return input(question).strip().lower() == "y"


def perform(experiment: Experiment, report: Report, *, yes: bool = False) -> Outcome:
    """Run a lab and then its negative control."""
    outcome = Outcome(experiment)
    report.begin()
    if cure := _refusal(experiment, yes=yes):
        outcome.run.append(Event("skip", cure, "許可または権限"))
        report.tell(outcome.run[-1])
        return outcome
    start = time.monotonic()
    _watch(sandbox.Sandbox(experiment, "run"), outcome.run, report)
    if outcome.verdict == Verdict.PROVED:
        report.begin_control()
        _watch(sandbox.Sandbox(experiment, "control"), outcome.control, report)
    outcome.seconds = time.monotonic() - start
    report.end(outcome)
    return outcome


def probe(experiment: Experiment) -> list[Event]:
    """Return what a lab needs and this machine lacks."""
    if cure := _refusal(experiment, yes=True):
        return [Event("skip", cure, "許可または権限")]
    box = sandbox.Sandbox(experiment, "needs")
    events = [event for event in box.events() if event.kind in {"skip", "error"}]
    box.close()
    return events


def _told_whole(experiment: Experiment, *, yes: bool) -> Outcome:
    out = io.StringIO()
    outcome = perform(experiment, Report(experiment, out), yes=yes)
    with _printing:
        print(out.getvalue(), end="", flush=True)
    return outcome


def _side_by_side(experiments: Iterable[Experiment], jobs: int, *, yes: bool) -> list[Outcome]:
    with ThreadPoolExecutor(jobs) as pool:
        try:
            return list(pool.map(lambda one: _told_whole(one, yes=yes), experiments))
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            stop_all()
            raise


def _solitary(experiment: Experiment) -> bool:
    return experiment.lab.alone or experiment.lab.machine_wide


def run(experiments: Sequence[Experiment], *, jobs: int = 1, yes: bool = False) -> list[Outcome]:
    """Run labs; with several jobs, those that bear company first, then the others alone."""
    together = [one for one in experiments if jobs > 1 and not _solitary(one)]
    outcomes = _side_by_side(together, jobs, yes=yes) if together else []
    alone = [one for one in experiments if one not in together]
    outcomes += [perform(one, Report(one), yes=yes) for one in alone]
    return outcomes
