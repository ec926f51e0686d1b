"""One thing that happened in a lab, as it travels from the sandbox to whoever watches."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

Kind = Literal[
    "section", "say", "command", "output", "file", "fact", "control", "name", "skip", "error", "end"
]


@dataclass(frozen=True)
class Event:
    """What happened; which fields are used depends on the kind.

    `label` holds a section's id, a prompt, a file's name, a fact's id, or a missing need;
    `text` what was said, run, printed, written, seen, or the cure; `good` whether a fact held
    or a negative control made its fact false.
    """

    kind: Kind
    text: str = ""
    label: str = ""
    good: bool = True
    why: str = ""

    def encode(self) -> bytes:
        """Return the event as one line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False).encode() + b"\n"


Emit = Callable[[Event], None]


def decode(line: bytes | str) -> Event:
    """Return the event that a line of JSON holds."""
    return Event(**json.loads(line))
