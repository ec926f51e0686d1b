"""Code in Markdown, hidden while the prose around it is changed."""

from __future__ import annotations

import re

_FENCE = r"^[ ]*(?P<fence>`{3,}|~{3,})[^`\n]*\n(?:.*?\n)?[ ]*(?P=fence)[`~]*[ ]*$"
_SPAN = r"(?<!`)(?P<span>`+)(?!`)(?:(?!\n[ ]*\n).)+?(?<!`)(?P=span)(?!`)"
_CODE = re.compile(f"{_FENCE}|{_SPAN}", re.M | re.S)
_HIDDEN = re.compile("\ue000(?P<number>[0-9]+)\ue001")  # letters that no text uses


def hide(markdown: str) -> tuple[str, list[str]]:
    """Return the text with a mark for each piece of code, and the pieces."""
    pieces: list[str] = []

    def mark(found: re.Match[str]) -> str:
        pieces.append(found[0])
        return f"\ue000{len(pieces) - 1}\ue001"

    return _CODE.sub(mark, markdown), pieces


def show(hidden: str, pieces: list[str]) -> str:
    """Return the text with its code again."""
    return _HIDDEN.sub(lambda found: pieces[int(found["number"])], hidden)
