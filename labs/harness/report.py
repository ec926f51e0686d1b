"""What a person reads while a lab runs, in Japanese."""

from __future__ import annotations

import sys
from typing import TextIO

from labs.harness import sandbox
from labs.harness.event import Event
from labs.harness.lab import Experiment
from labs.harness.outcome import Outcome, Verdict

_BOLD, _GREEN, _RED, _DIM, _PLAIN = "\033[1m", "\033[32m", "\033[31m", "\033[2m", "\033[0m"
_VERDICTS = {Verdict.PROVED: "✓ 確かめた", Verdict.FAILED: "✗ 失敗", Verdict.SKIPPED: "- 飛ばした"}


class Report:
    """Writes events as they come."""

    def __init__(self, experiment: Experiment, out: TextIO | None = None) -> None:
        """Write about one lab, to the standard output unless told otherwise."""
        self._experiment, self._out = experiment, out or sys.stdout
        self._colour = self._out.isatty()

    def _write(self, text: str, style: str = "") -> None:
        on, off = (style, _PLAIN) if self._colour and style else ("", "")
        print(f"{on}{text}{off}", file=self._out, flush=True)

    def begin(self) -> None:
        """Introduce the lab before it starts."""
        lab = self._experiment.lab
        self._write(f"\n=== {self._experiment.id}: {lab.title}", _BOLD)
        self._write(lab.shows)
        where = "、マシン全体に触れます" if lab.machine_wide else "、外には何も残りません"
        self._write(f"動かす権限: {sandbox.whose_rights()}{where}（目安 {lab.seconds}秒）")
        if lab.topology:
            self._write("構成:")
        for namespace, interface, address in lab.topology:
            self._write(f"  {namespace:<10} {interface:<8} {address}")

    def begin_control(self) -> None:
        """Introduce the negative controls."""
        self._write("\n--- 対照実験: 原因を除くと、事実が成り立たなくなること", _BOLD)

    def tell(self, event: Event) -> None:
        """Write one event."""
        name = f"_{event.kind}"
        if hasattr(self, name):
            getattr(self, name)(event)

    def _section(self, event: Event) -> None:
        self._write(f"\n■ {event.text}", _BOLD)

    def _say(self, event: Event) -> None:
        self._write(f"\n{event.text}")

    def _command(self, event: Event) -> None:
        self._write(f"  {event.label}{event.text}", _BOLD)

    def _output(self, event: Event) -> None:
        for line in event.text.splitlines():
            self._write(f"  {line}")

    def _file(self, event: Event) -> None:
        self._write(f"  ファイル {event.label}:")
        for line in event.text.splitlines():
            self._write(f"  | {line}", _DIM)

    def _fact(self, event: Event) -> None:
        self._sentence(event, self._experiment.lab.facts[event.label])

    def _control(self, event: Event) -> None:
        self._sentence(event, event.why)

    def _sentence(self, event: Event, sentence: str) -> None:
        mark, style = ("✓", _GREEN) if event.good else ("✗", _RED)
        self._write(f"  {mark} {sentence} [{event.label}]", style)
        self._write(f"      見えたもの: {event.text}", _DIM)

    def _skip(self, event: Event) -> None:
        self._write(f"  - 足りないもの: {event.label}。直し方: {event.text}", _RED)

    def _error(self, event: Event) -> None:
        self._write(f"  ✗ {event.text}", _RED)

    def end(self, outcome: Outcome) -> None:
        """Write how it ended."""
        facts = sum(event.kind == "fact" and event.good for event in outcome.events)
        controls = sum(event.kind == "control" and event.good for event in outcome.events)
        verdict = _VERDICTS[outcome.verdict]
        figures = f"事実{facts}、対照{controls}、{outcome.seconds:.1f}秒"
        self._write(f"\n{verdict}: {self._experiment.id}（{figures}）", _BOLD)


def summary(outcomes: list[Outcome]) -> str:
    """Return the end of a run: what failed or was skipped, and the counts."""
    lines = [f"✗ {line}" for outcome in outcomes for line in outcome.failures]
    for outcome in outcomes:
        lines += [
            f"- {outcome.experiment.id}: 飛ばしました。"
            f"足りないもの: {event.label}。直し方: {event.text}"
            for event in outcome.missing[:1]
        ]
    counts = "、".join(
        f"{text} {sum(outcome.verdict == verdict for outcome in outcomes)}"
        for verdict, text in _VERDICTS.items()
    )
    return "\n".join([*lines, counts])
