"""What happened in a lab, as Markdown for its chapter, and as the shape that a run must keep."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

from labs.harness.event import Event
from labs.harness.lab import Experiment
from labs.harness.normalise import Normaliser

_SHOWN = frozenset({"section", "say", "command", "output", "file", "fact", "control"})
_SEEN = "    - 見えたもの: "
_FENCE = "```"
_COMMAND = re.compile(r"^(?:\[[\w-]+\])?(?:[#$] |>>> )|^- [✓✗] ")


def normalised(events: Sequence[Event], extra: Sequence[str] = ()) -> list[Event]:
    """Return the events with normalised texts, without those that only teach names."""
    normaliser = Normaliser(extra)
    for event in events:
        if event.kind == "name":
            normaliser.know(event.label, event.text)
    kept = [event for event in events if event.kind in _SHOWN]
    texts = normaliser.texts(event.text for event in kept)
    return [
        Event(event.kind, text, event.label, event.good, event.why)
        for event, text in zip(kept, texts, strict=True)
    ]


class _Page:
    """Markdown that grows event by event; neighbouring commands share one block."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._section, self._language, self._prefix = "", "", ""
        self.lines: list[str] = []

    def part(self, name: str, prefix: str, events: Iterable[Event]) -> None:
        """Add a part that can be included by its name; its sections' names get the prefix."""
        self._prefix = prefix
        self._mark("start", name)
        for event in events:
            self.add(event)
        self.end()
        self._mark("end", name)

    def facts(self) -> None:
        """Add the list of all that the lab proves."""
        self._mark("start", "facts")
        self.lines += [f"- {sentence}" for sentence in self._experiment.lab.facts.values()]
        self.lines.append("")
        self._mark("end", "facts")

    def _mark(self, edge: str, name: str) -> None:
        self.lines += [f"<!-- --8<-- [{edge}:{name}] -->", ""]

    def add(self, event: Event) -> None:
        {
            "section": self._begin,
            "say": self._say,
            "command": self._command,
            "output": self._output,
            "file": self._file,
            "fact": self._fact,
            "control": self._control,
        }[event.kind](event)

    def end(self) -> None:
        self._text()
        if self._section:
            self._mark("end", self._section)
        self._section = ""

    def _text(self) -> None:
        if self._language:
            self.lines += [_FENCE, ""]
        elif self.lines and self.lines[-1]:
            self.lines.append("")
        self._language = ""

    def _code(self, language: str) -> None:
        if self._language != language:
            self._text()
            self.lines.append(_FENCE + language)
            self._language = language

    def _begin(self, event: Event) -> None:
        self.end()
        self._section = self._prefix + event.label
        self._mark("start", self._section)
        self.lines += [f"**{event.text}**", ""]

    def _say(self, event: Event) -> None:
        self._text()
        self.lines.append(event.text)

    def _command(self, event: Event) -> None:
        self._code("console")
        self.lines += (event.label + event.text).split("\n")

    def _output(self, event: Event) -> None:
        if event.text:
            self._code("console")
            self.lines += event.text.split("\n")

    def _file(self, event: Event) -> None:
        self._text()
        language = event.label.rpartition(".")[2].replace("py", "python")
        self._code(f'{language} title="{event.label}"')
        self.lines += event.text.split("\n")
        self._text()

    def _fact(self, event: Event) -> None:
        self._item(event, "✓" if event.good else "✗", self._experiment.lab.facts[event.label])

    def _control(self, event: Event) -> None:
        self._item(event, "✓" if event.good else "✗", event.why)

    def _item(self, event: Event, mark: str, sentence: str) -> None:
        if self._language or not (self.lines and self.lines[-1].startswith(_SEEN)):
            self._text()
        self.lines.append(f"- {mark} {sentence}（`{self._experiment.id}/{event.label}`）")
        told = event.text.replace("\n", " ").replace("<", "&lt;")  # <port-1> is no tag
        self.lines.append(_SEEN + told)


def markdown(experiment: Experiment, run: Sequence[Event], control: Sequence[Event]) -> str:
    """Return the facts and the two parts of a lab as Markdown, in sections for a chapter."""
    page = _Page(experiment)
    page.facts()
    page.part("run", "", run)
    page.part("control", "control-", control)
    return "\n".join(page.lines).rstrip() + "\n"


def shape(text: str, *, stable: bool) -> list[str]:
    """Return the lines of a transcript that every run must show again."""
    if stable:
        return [line for line in text.splitlines() if not line.startswith(_SEEN)]
    return [line for line in text.splitlines() if _COMMAND.match(line)]


def difference(recorded: str, fresh: str, *, stable: bool) -> str:
    """Return how the shape of a fresh transcript differs, as a unified diff, or nothing."""
    lines = difflib.unified_diff(
        shape(recorded, stable=stable),
        shape(fresh, stable=stable),
        "記録",
        "今回",
        lineterm="",
    )
    return "\n".join(lines)
