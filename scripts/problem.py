"""A problem an author can mend: where it is, what it is, how to cure it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mkdocs.exceptions import PluginError


@dataclass(frozen=True, order=True)
class Problem:
    """One finding in a source file; `line` counts from 1."""

    path: str
    line: int
    what: str
    cure: str

    def __str__(self) -> str:
        """Return `path:line: what。cure`."""
        return f"{self.path}:{self.line}: {self.what}。{self.cure}"


def report(problems: Iterable[Problem]) -> str:
    """Return the problems in file and line order, one a line."""
    return "\n".join(str(problem) for problem in sorted(set(problems)))


def stop_on(problems: Iterable[Problem]) -> None:
    """Stop the build when there is a problem.

    Raises:
        PluginError: with every problem, one a line; MkDocs exits with 1.

    """
    found = report(problems)
    if found:
        raise PluginError("\n" + found)
