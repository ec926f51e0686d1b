"""The transcript kept beside a lab, and the environment that it came from."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from labs.harness import needs, sandbox
from labs.harness.event import Event
from labs.harness.lab import FOLDER, Experiment
from labs.harness.outcome import Outcome
from labs.harness.transcript import difference, markdown, normalised


def transcript_path(experiment: Experiment) -> Path:
    """Return where the transcript of a lab is kept."""
    return FOLDER / f"{experiment.id}.md"


def environment_path(experiment: Experiment) -> Path:
    """Return where the environment and the facts of a lab are kept."""
    return FOLDER / f"{experiment.id}.json"


def _parts(outcome: Outcome) -> tuple[list[Event], list[Event]]:
    names = outcome.experiment.lab.names
    return normalised(outcome.run, names), normalised(outcome.control, names)


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"


def _versions(packages: Sequence[str]) -> dict[str, str]:
    command = ["dpkg-query", "-W", "-f=${Package} ${Version}\n", *packages]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return {}
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


def _environment(outcome: Outcome) -> dict[str, Any]:
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "distribution": _distribution(),
        "rights": sandbox.whose_rights(),
        "packages": _versions(needs.packages(outcome.experiment.lab.needs)),
        "date": datetime.date.today().isoformat(),
        "seconds": round(outcome.seconds, 1),
    }


def _facts(outcome: Outcome, events: Sequence[Event]) -> dict[str, Any]:
    texts = outcome.experiment.lab.facts
    seen = {event.label: event.text for event in events if event.kind == "fact"}
    return {fact: {"text": texts[fact], "seen": seen[fact]} for fact in texts}


def _controls(events: Sequence[Event]) -> list[dict[str, str]]:
    return [
        {"fact": event.label, "why": event.why, "seen": event.text}
        for event in events
        if event.kind == "control"
    ]


def describe(outcome: Outcome) -> dict[str, Any]:
    """Return what stands beside the transcript."""
    lab, (run, control) = outcome.experiment.lab, _parts(outcome)
    return {
        "id": outcome.experiment.id,
        "title": lab.title,
        "chapter": lab.chapter,
        "shows": lab.shows,
        "topology": [list(address) for address in lab.topology],
        "needs": [need.name for need in lab.needs],
        "root": lab.root,
        "machine_wide": lab.machine_wide,
        "environment": _environment(outcome),
        "facts": _facts(outcome, run),
        "controls": _controls(control),
    }


def record(outcome: Outcome) -> list[Path]:
    """Keep the transcript and the environment of a lab that was proved."""
    transcript = transcript_path(outcome.experiment)
    environment = environment_path(outcome.experiment)
    transcript.write_text(fresh(outcome), encoding="utf-8")
    text = json.dumps(describe(outcome), ensure_ascii=False, indent=2)
    environment.write_text(text + "\n", encoding="utf-8")
    return [transcript, environment]


def fresh(outcome: Outcome) -> str:
    """Return the transcript of a run just made."""
    return markdown(outcome.experiment, *_parts(outcome))


def compare(outcome: Outcome) -> str:
    """Return how a fresh run differs from what is kept, or nothing."""
    path = transcript_path(outcome.experiment)
    kept = path.read_text(encoding="utf-8") if path.exists() else ""
    return difference(kept, fresh(outcome), stable=outcome.experiment.lab.stable)
