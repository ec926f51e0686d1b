"""A drawn diagram as the HTML that stands in the page."""

from __future__ import annotations

import hashlib
import html
import re

from scripts.diagrams import palette
from scripts.diagrams.fence import Fence
from scripts.diagrams.painter import Drawing

_FIGURE = """<figure class="diagram" data-search-exclude>
<svg class="diagram__image {kind}" id="{id}" role="img" aria-labelledby="{id}-title {id}-desc" \
viewBox="{viewbox}" width="{width}" height="{height}" xmlns="http://www.w3.org/2000/svg">\
<title id="{id}-title">{title}</title><desc id="{id}-desc">{desc}</desc>\
<style>{css}</style>{inner}</svg>
<figcaption class="diagram__caption">{title}</figcaption>
<details class="diagram__text"><summary>図を文章で読む</summary><p>{desc}</p></details>
</figure>"""
_TAG = re.compile(r"<[^>]+>")
_LONG_NUMBER = re.compile(r"(?<![\d.])-?\d+\.\d{3,}(?![\d.])")


def _round(match: re.Match[str]) -> str:
    return f"{float(match[0]):.2f}".rstrip("0").rstrip(".")


def _shortened(svg: str) -> str:
    """Round the coordinates; what stands between tags is read by people."""
    return _TAG.sub(lambda tag: _LONG_NUMBER.sub(_round, tag[0]), svg)


def figure_id(fence: Fence, again: int = 0) -> str:
    """Return an id made of the diagram's content; `again` counts equal ones before it."""
    digest = hashlib.sha256(fence.source.encode()).hexdigest()[:8]
    return f"dg-{digest}" + (f"-{again + 1}" if again else "")


def stray_colours(drawing: Drawing) -> set[str]:
    """Return colours of a drawing that no custom property stands for."""
    return palette.to_properties(drawing.css + drawing.inner)[1]


def figure(fence: Fence, drawing: Drawing, id_: str) -> str:
    """Return the figure: inline SVG, caption, and a text alternative to open."""
    css = palette.to_properties(drawing.css)[0]
    inner = palette.to_properties(drawing.inner)[0]
    return _FIGURE.format(
        id=id_,
        kind=drawing.kind,
        viewbox=_LONG_NUMBER.sub(_round, drawing.viewBox),
        width=round(drawing.width),
        height=round(drawing.height),
        title=html.escape(fence.title),
        desc=html.escape(fence.description),
        css=css.replace("DGID", id_),
        inner=_shortened(inner).replace("DGID", id_),
    )
