"""YAML whose texts know the line they stand on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


class Placed(str):
    """A text of a YAML file; `line` counts from 1."""

    line: int

    @classmethod
    def at(cls, text: str, line: int) -> Placed:
        """Return the text, placed."""
        placed = cls(text)
        placed.line = line
        return placed


def _value(node: yaml.Node | None) -> Any:
    if isinstance(node, yaml.MappingNode):
        return {key.value: _value(value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [_value(item) for item in node.value]
    return Placed.at(node.value, node.start_mark.line + 1) if node else None


def read(path: Path) -> Any:
    """Return what a YAML file says: mappings, lists and placed texts."""
    return _value(yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader))
