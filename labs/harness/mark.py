"""How what a run makes outside its sandbox is named: a test finds its own run's things by it."""

from __future__ import annotations

import os

VARIABLE = "INFRA_NOTES_LAB"


def prefix() -> str:
    """Return how the names of a run's folders and cgroups begin."""
    return f"infra-lab-{os.environ.get(VARIABLE, '')}"
