"""What can go wrong in a lab, each told to the reader in one Japanese sentence."""

from __future__ import annotations


class LabError(Exception):
    """An experiment could not go on; its text is shown to the reader."""


class TimeLimitError(LabError):
    """Something awaited did not come; the text says what."""


class InterruptedLabError(LabError):
    """A person or the harness asked the lab to stop."""
