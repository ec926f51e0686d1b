"""Give a PDF's letters the code points that people type: Chromium names some by a radical's."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

from pypdf import PdfWriter
from pypdf.generic import DictionaryObject, StreamObject

_CODES = re.compile(rb"<((?:[0-9A-Fa-f]{4})+)>")
# What Unicode itself does not map: a hyphenation point for a Katakana middle dot, and
# radicals of the CJK Radicals Supplement as they stand in Japanese type.
_ALIKE = str.maketrans(
    "\u2027\u2e9f\u2ea0\u2ec1\u2ec4\u2ec6\u2ed1\u2ed8\u2edd\u2ee4\u2ee8\u2ee9\u2eeb\u2eed\u2eef\u2ef2",
    "・母民虎西角長青食鬼麦黄斉歯竜亀",
)


def typed(text: str) -> str:
    """Return a text with radicals (U+2E80 to U+2FDF) as the characters they look like."""
    return "".join(
        unicodedata.normalize("NFKC", one) if "\u2e80" <= one <= "\u2fdf" else one
        for one in text.translate(_ALIKE)
    )


def _mended(line: bytes) -> bytes:
    """Mend the last code of a line of a ToUnicode map: the text that glyphs stand for."""
    codes = list(_CODES.finditer(line))
    if not codes:
        return line
    last = codes[-1]
    text = typed(bytes.fromhex(last[1].decode()).decode("utf-16-be", "surrogatepass"))
    code = text.encode("utf-16-be", "surrogatepass").hex().upper().encode()
    return line[: last.start(1)] + code + line[last.end(1) :]


def _maps(writer: PdfWriter) -> list[StreamObject]:
    fonts = [found for found in writer._objects if isinstance(found, DictionaryObject)]
    maps = [font["/ToUnicode"].get_object() for font in fonts if "/ToUnicode" in font]
    return [found for found in maps if isinstance(found, StreamObject)]


def mend(path: Path) -> None:
    """Rewrite the letters of a PDF in place."""
    writer = PdfWriter(clone_from=path)
    for map_ in _maps(writer):
        lines = map_.get_data().split(b"\n")
        map_.set_data(b"\n".join(map(_mended, lines)))
    writer.compress_identical_objects()
    writer.write(path)
