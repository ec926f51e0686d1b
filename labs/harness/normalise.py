"""Values that change from run to run, replaced so that equal values stay visibly equal.

Ports, PIDs, initial sequence numbers and MAC addresses become stand-ins of the same kind and
width, in the order of their first appearance; a sequence number keeps its distance from the
initial one. Times and rates are masked. Addresses that a lab chose itself stay, and so do
broadcast and multicast MAC addresses.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

_STRIDE = 100_000_000
_NEAR = 1_000_000
_EPHEMERAL = range(32768, 61000)
_HIDDEN = "…"

_STAND_INS: dict[str, Callable[[int], str]] = {
    "port": lambda n: str(50000 + n),
    "pid": lambda n: str(7000 + n),
    "isn": lambda n: str(n * _STRIDE),
    "mac": lambda n: f"02:00:00:00:00:{n:02x}",
    "address": lambda n: f"<address-{n:02}>",
}

_IP = r"\d+\.\d+\.\d+\.\d+"
_PATTERNS = (
    rf"\b{_IP}[.:](?P<port>\d{{5}})\b",
    r"\bs?port (?P<port>\d{5})\b",
    r"Flags \[S[^\]]*\],.*? seq (?P<isn>\d+)\b",
    r"\bseq (?P<seq>\d{6,})\b",
    r"\bseq \S+:(?P<seq>\d{6,})\b",
    r"\back (?P<seq>\d{6,})\b",
    r"\b(?P<mac>[0-9a-f][02468ace](?::[0-9a-f]{2}){5})\b",
    r"\b(?P<address>[0-9a-f]{12,16})(?=-[0-9a-f]{12,16} [r-][w-][x-])",
    r"(?<=-)(?P<address>[0-9a-f]{12,16})(?= [r-][w-][x-])",
    r"\b0x(?P<address>[0-9a-f]{8,16})\b",
    r"\b(?:si_)?pid[= ](?P<pid>\d+)\b",
    r"\[pid +(?P<pid>\d+)\]",
    r"^(?P<pid>\d+) +(?:\w+\(|<\.\.\.|\+\+\+|---)",
    r"\b(?:clone3?|v?fork|wait4|waitid|getpid|getppid|gettid)\(.*= (?P<pid>\d+)$",
    r"<\.\.\. (?:clone3?|v?fork|wait4) resumed>.*= (?P<pid>\d+)$",
    r"\bwait4\((?P<pid>\d+),",
    r"\binode[ =:]+(?P<inode>\d+)\b",
    r" [r-][w-][x-][ps] [0-9a-f]{8} \S+ (?P<inode>[1-9]\d*) ",
)
_MASKED = (
    r"\b\d\d:\d\d:\d\d(?:\.\d+)?\b",
    r"\b\d{4}-\d\d-\d\d\b",
    r"(?<=TS val )\d+|(?<=ecr )\d+",
    r"\b\d+(?:\.\d+)?(?= ?(?:ms|µs|usec|msec)\b)",
    r"\b\d+(?:\.\d+)?(?= ?[kKMGT]?i?(?:B|bit|bits|bytes)/s(?:ec)?\b)",
    r"(?<=timer:\(on,)[^,]+(?=,)",
    r"(?<=timer:\(timewait,)[^,]+(?=,)",
    r"(?<=timer:\(keepalive,)[^,]+(?=,)",
    r"(?<=\bid )\d+(?=, offset)",
    r"(?<=, id )\d+(?=, )",
)
_PID_COLUMNS = {"PID", "PPID", "PGID", "SID", "TID", "LWP", "SPID", "TPGID"}
_NUMBER = re.compile(r"(?<![A-Za-z0-9_.])\d{4,10}(?![A-Za-z0-9_]|\.\d)")
_MARK = re.compile("\x00(\\w+)\\|([^|]+)\\|(\\d+)\x00")
_MARKS = re.compile("(\x00[^\x00]+\x00)")


def _mark(kind: str, value: str, distance: int = 0) -> str:
    return f"\x00{kind}|{value}|{distance}\x00"


def _outside_marks(change: Callable[[str], str], text: str) -> str:
    parts = _MARKS.split(text)
    parts[::2] = [change(part) for part in parts[::2]]
    return "".join(parts)


@dataclass
class _Values:
    """The values of each kind that were recognised."""

    known: dict[str, set[str]] = field(default_factory=dict)

    def mark(self, kind: str, value: str) -> str:
        """Return a mark for a value of a kind, or the value itself where it never changes."""
        if kind == "seq":
            return self._near(value) or self.mark("isn", value)
        if (kind == "pid" and value in "01") or (kind == "port" and int(value) not in _EPHEMERAL):
            return value
        self.known.setdefault(kind, set()).add(value)
        return _mark(kind, value)

    def _near(self, value: str) -> str:
        """Return the mark of a number that follows closely on an initial sequence number."""
        distances = {(int(value) - int(isn)) % 2**32: isn for isn in self.known.get("isn", ())}
        nearest = min(distances, default=_NEAR)
        return _mark("isn", distances[nearest], nearest) if nearest < _NEAR else ""

    def recognise(self, value: str) -> str:
        """Return the mark of a bare number that was met before, or follows on an ISN."""
        for kind, values in self.known.items():
            if value in values:
                return _mark(kind, value)
        return self._near(value) or value


@dataclass
class _StandIns:
    """What stands for each value, in the order of their first appearance."""

    numbers: dict[str, dict[str, int]] = field(default_factory=dict)

    def __call__(self, mark: re.Match[str]) -> str:
        kind, value, distance = mark[1], mark[2], int(mark[3])
        numbers = self.numbers.setdefault(kind, {})
        number = numbers.setdefault(value, len(numbers) + 1)
        if kind == "isn":
            return str(number * _STRIDE + distance)
        return _STAND_INS[kind](number) if kind in _STAND_INS else f"<{kind}-{number}>"


def _mark_groups(pattern: re.Pattern[str], text: str, values: _Values) -> str:
    def replace(found: re.Match[str]) -> str:
        kind = found.lastgroup or ""
        start, end = (edge - found.start() for edge in found.span(kind))
        return found[0][:start] + values.mark(kind, found[kind]) + found[0][end:]

    return pattern.sub(replace, text)


def _mark_columns(text: str, values: _Values) -> str:
    columns: set[int] = set()
    lines = []
    for line in text.split("\n"):
        words = line.split()
        if _PID_COLUMNS & set(words):
            columns = {n for n, word in enumerate(words) if word in _PID_COLUMNS}
        lines.append(_mark_words(line, columns, values))
    return "\n".join(lines)


def _mark_words(line: str, columns: set[int], values: _Values) -> str:
    number = itertools.count()

    def replace(found: re.Match[str]) -> str:
        wanted = next(number) in columns and found[0].isdigit()
        return values.mark("pid", found[0]) if wanted else found[0]

    return re.sub(r"\S+", replace, line)


def _mask(text: str) -> str:
    for pattern in _MASKED:
        text = re.sub(pattern, _HIDDEN, text)
    return text


class Normaliser:
    """Normalises the texts of one sandbox, first all of them, then each."""

    def __init__(self, extra: Sequence[str] = ()) -> None:
        """Begin with a lab's own patterns, tried before the common ones."""
        self._patterns = [re.compile(pattern, re.M) for pattern in (*extra, *_PATTERNS)]
        self._values = _Values()

    def know(self, kind: str, value: str) -> None:
        """Take a value as one that changes."""
        self._values.mark(kind, value)

    def _mark(self, text: str) -> str:
        text = _mark_columns(text, self._values)
        for pattern in self._patterns:
            text = _mark_groups(pattern, text, self._values)
        return _outside_marks(_mask, text)

    def _recognise(self, text: str) -> str:
        return _NUMBER.sub(lambda number: self._values.recognise(number[0]), text)

    def texts(self, texts: Iterable[str]) -> list[str]:
        """Return the texts normalised; a value met in one is recognised in all."""
        marked = [self._mark(text) for text in texts]
        recognised = [_outside_marks(self._recognise, text) for text in marked]
        stand_ins = _StandIns()
        return [_MARK.sub(stand_ins, text) for text in recognised]


def normalise(text: str, extra: Sequence[str] = ()) -> str:
    """Return one text normalised."""
    return Normaliser(extra).texts([text])[0]
