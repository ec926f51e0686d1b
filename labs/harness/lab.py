"""A lab's description, and how labs are found: every module of this package with a `LAB`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from labs.harness.needs import Need
    from labs.harness.world import World

FOLDER = Path(__file__).resolve().parents[1]
ROOT = FOLDER.parent
Address = tuple[str, str, str]
"""A network namespace, an interface of it, and the address on it."""


def _fit() -> str:
    return ""


@dataclass(frozen=True, kw_only=True)
class Lab:
    """What a lab shows, what it proves and what it asks of the machine.

    `facts` maps ids to sentences; each must be proved exactly once a run. `alone` labs never
    share the machine with another lab. `disk` gives a directory on a real disk. `machine_wide`
    labs reach out of the sandbox: they need root, ask first, and `unfit` names the reason why
    this machine is not fit for them, or nothing. `stable` promises the same normalised
    transcript, line by line, on every run. `names` holds more patterns for the normaliser: each
    regular expression has one group, named after the kind of value it finds.
    """

    title: str
    chapter: str
    shows: str
    facts: Mapping[str, str]
    needs: tuple[Need, ...]
    seconds: int
    topology: tuple[Address, ...] = ()
    limit: int = 60
    alone: bool = False
    root: bool = False
    disk: bool = False
    machine_wide: bool = False
    stable: bool = False
    names: tuple[str, ...] = ()
    unfit: Callable[[], str] = _fit


@dataclass(frozen=True)
class Experiment:
    """A lab under its id, with the functions that run it and its negative control."""

    id: str
    lab: Lab
    run: Callable[[World], None]
    control: Callable[[World], None]

    @property
    def module(self) -> str:
        """Return the name of the Python module."""
        return self.id.replace("-", "_")


def _load(name: str) -> Experiment | None:
    module = importlib.import_module(f"labs.{name}")
    if not isinstance(getattr(module, "LAB", None), Lab):
        return None
    return Experiment(name.replace("_", "-"), module.LAB, module.run, module.control)


def discover() -> dict[str, Experiment]:
    """Return every lab under its id, in the order of their names."""
    names = sorted(info.name for info in pkgutil.iter_modules([str(FOLDER)]))
    found = [_load(name) for name in names if not name.startswith("__") and name != "harness"]
    return {experiment.id: experiment for experiment in found if experiment}
