"""How a lab ended: everything that happened, and what that means."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from labs.harness.event import Event
from labs.harness.lab import Experiment


class Verdict(IntEnum):
    """What a lab's end means; the number is the exit code."""

    PROVED = 0
    FAILED = 1
    SKIPPED = 4


@dataclass
class Outcome:
    """The events of a lab's two parts and the seconds it took."""

    experiment: Experiment
    run: list[Event] = field(default_factory=list)
    control: list[Event] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def events(self) -> list[Event]:
        """Return everything in order."""
        return [*self.run, *self.control]

    @property
    def missing(self) -> list[Event]:
        """Return the needs that are not met."""
        return [event for event in self.events if event.kind == "skip"]

    @property
    def failures(self) -> list[str]:
        """Return one line for every failure: what was expected and what was seen."""
        return [line for event in self.events if (line := self._failure(event))]

    def _failure(self, event: Event) -> str:
        name, facts = self.experiment.id, self.experiment.lab.facts
        if event.kind == "fact" and not event.good:
            expected = facts[event.label]
            return f"{name}/{event.label}: 期待「{expected}」、見えたもの「{event.text}」"
        if event.kind == "control" and not event.good:
            told = "原因を除いても事実が成り立ちました。対照になっていません"
            return f"{name}/{event.label}: {told}。見えたもの「{event.text}」"
        return f"{name}: {event.text}" if event.kind == "error" else ""

    @property
    def verdict(self) -> Verdict:
        """Return what this end means."""
        if self.failures:
            return Verdict.FAILED
        return Verdict.SKIPPED if self.missing else Verdict.PROVED
