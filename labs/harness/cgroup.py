"""A cgroup of a lab's own; its files have the same names under version 1 and 2."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from labs.harness import mark
from labs.harness.world import World

Files = Mapping[str, tuple[str, str]]
_ROOT = Path("/sys/fs/cgroup")
_SIGNS = {"memory": "memory.limit_in_bytes", "cpu": "cpu.stat"}  # what version 1 has of each


def _own(controller: str) -> str:
    """Return where this process stands in version 1's hierarchy of a controller."""
    text = Path("/proc/self/cgroup").read_text(encoding="utf-8")
    found = re.search(rf"^\d+:(?:\w+,)*{controller}(?:,\w+)*:/(.*)$", text, re.M)
    return found[1] if found else ""


def parent(controller: str) -> Path | None:
    """Return the cgroup below which a lab's own is made: version 2's root, or ours in version 1."""
    controllers = _ROOT / "cgroup.controllers"
    if controllers.exists() and controller in controllers.read_text(encoding="utf-8").split():
        return _ROOT
    mine = _ROOT / controller / _own(controller)
    return mine if (mine / _SIGNS[controller]).exists() else None


def is_version_2(group: Path) -> bool:
    """Tell whether a cgroup belongs to the unified hierarchy."""
    return (group / "cgroup.controllers").exists()


def _delegate(world: World, controller: str, above: Path) -> None:
    """Hand a controller to the children of a version 2 cgroup, and take it back afterwards."""
    control = above / "cgroup.subtree_control"
    if control.exists() and controller not in control.read_text(encoding="utf-8").split():
        world.undo(f"echo -{controller} > {control}")
        world.ask(f"echo +{controller} > {control}")


def make(world: World, controller: str, path: Path, name: str, files: Files) -> None:
    """Make a cgroup and the folder `name`, in which its files stand under names of ours.

    `files` gives for each name the file in version 2 and in version 1.
    """
    _delegate(world, controller, path.parent)
    world.undo(f"for try in {{1..50}}; do rmdir {path} && break; sleep 0.1; done")
    world.ask(f"mkdir {path} && mkdir {name}")
    world.undo(f"for pid in $(cat {path}/cgroup.procs); do kill -KILL $pid; done")
    version = 0 if is_version_2(path) else 1
    for link, real in {**files, "procs": ("cgroup.procs", "cgroup.procs")}.items():
        world.ask(f"ln -s {path}/{real[version]} {name}/{link}")


def new(controller: str) -> Path:
    """Return the path of a cgroup that nobody has yet."""
    above = parent(controller)
    assert above, f"no cgroup has the {controller} controller"
    return above / f"{mark.prefix()}{os.urandom(4).hex()}"
