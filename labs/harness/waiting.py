"""Waiting: poll until something holds, and say what was awaited when it does not come."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from labs.harness.problem import TimeLimitError

T = TypeVar("T")
LIMIT = 45  # seconds; a busy machine takes long, a broken lab for ever
_PAUSE = 0.02


def until(condition: Callable[[], T | None], what: str, limit: float = LIMIT) -> T:
    """Return the first true value of `condition`.

    Raises:
        TimeLimitError: when the limit passes first; it names `what`.

    """
    end = time.monotonic() + limit
    while not (value := condition()):
        if time.monotonic() > end:
            raise TimeLimitError(f"{limit:g}秒待っても、次のことが起きませんでした: {what}")
        time.sleep(_PAUSE)
    return value
