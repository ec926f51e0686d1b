"""What a transcript shows of a long output; what is left out leaves an ellipsis."""

from __future__ import annotations

import re
from collections.abc import Callable

View = Callable[[str], str]
_GONE = "…"


def whole(text: str) -> str:
    """Show everything."""
    return text


def tidy(text: str) -> str:
    """Return the text without blanks at the ends of its lines."""
    return "\n".join(line.rstrip() for line in text.splitlines()).rstrip("\n")


def only(pattern: str) -> View:
    """Show the lines that match a regular expression."""
    return lambda text: _keep(text, [bool(re.search(pattern, x)) for x in text.splitlines()])


def head(count: int) -> View:
    """Show the first lines."""
    return lambda text: _keep(text, [n < count for n, _ in enumerate(text.splitlines())])


def cut(*patterns: str) -> View:
    """Show every line without what the regular expressions match."""
    return lambda text: re.sub("|".join(patterns), _GONE, text)


def both(first: View, second: View) -> View:
    """Show what the second view leaves of the first."""
    return lambda text: second(first(text))


def _keep(text: str, wanted: list[bool]) -> str:
    kept: list[str] = []
    for line, keep in zip(text.splitlines(), wanted, strict=True):
        if keep:
            kept.append(line)
        elif not kept or kept[-1] != _GONE:
            kept.append(_GONE)
    return "\n".join(kept)
