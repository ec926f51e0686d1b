"""Diagrams kept by content, so that only new or changed ones need a browser."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from scripts.diagrams import painter
from scripts.diagrams.painter import Drawing, Refusal

STORE = painter.ROOT / ".cache/diagrams"
_MERMAID_PACKAGE = painter.ROOT / "node_modules/mermaid/package.json"


def _engine(author: Mapping[str, object]) -> bytes:
    version = json.loads(_MERMAID_PACKAGE.read_text(encoding="utf-8"))["version"]
    settings = json.dumps(painter.config(author), sort_keys=True)
    return f"{version}\n{settings}\n".encode() + painter.DRAW.read_bytes()


def _load(path: Path) -> Drawing | None:
    if not path.is_file():
        return None
    return Drawing(**json.loads(path.read_text(encoding="utf-8")))


def _save(path: Path, drawing: Drawing) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(dataclasses.asdict(drawing)), encoding="utf-8")
    part.replace(path)


def _draw_missing(
    missing: Sequence[str], author: Mapping[str, object], paths: Mapping[str, Path]
) -> Iterable[tuple[str, Drawing | Refusal]]:
    for source, outcome in zip(missing, painter.draw(missing, author), strict=True):
        if isinstance(outcome, Drawing):
            _save(paths[source], outcome)
        yield source, outcome


def draw(sources: Iterable[str], author: Mapping[str, object]) -> dict[str, Drawing | Refusal]:
    """Return the drawing of each source; refusals are not kept.

    Raises:
        NoChromiumError: when something is to be drawn and no Chromium is there.

    """
    engine = _engine(author)
    wanted = sorted(set(sources))
    paths = {s: STORE / f"{hashlib.sha256(engine + s.encode()).hexdigest()}.json" for s in wanted}
    kept = {source: _load(path) for source, path in paths.items()}
    missing = [source for source, drawing in kept.items() if drawing is None]
    known = {source: drawing for source, drawing in kept.items() if drawing is not None}
    return {**known, **dict(_draw_missing(missing, author, paths))}
