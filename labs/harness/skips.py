"""The labs that may be skipped in CI, each with its reason."""

from __future__ import annotations

from collections.abc import Iterable

from labs.harness.lab import FOLDER
from labs.harness.outcome import Outcome, Verdict

PATH = FOLDER / "skips.txt"


def allowed(text: str) -> dict[str, str]:
    """Return the reason of every lab listed as `lab: reason`; `#` begins a comment."""
    lines = (line.strip() for line in text.splitlines())
    pairs = (line.partition(":") for line in lines if line and not line.startswith("#"))
    return {name.strip(): reason.strip() for name, _, reason in pairs if reason.strip()}


def unexcused(outcomes: Iterable[Outcome], text: str) -> list[str]:
    """Return a line for every skipped lab that is not listed with a reason."""
    reasons = allowed(text)
    return [
        f"{outcome.experiment.id}: CIで飛ばしました。直すか、labs/skips.txtに理由を書いてください"
        for outcome in outcomes
        if outcome.verdict == Verdict.SKIPPED and outcome.experiment.id not in reasons
    ]
