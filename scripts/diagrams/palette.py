"""Colours of a diagram: Mermaid draws with sentinels, the page maps them to its scheme.

Each token stands for one CSS custom property (`--dg-ink` …). Mermaid is given a colour
found nowhere else for it; after drawing, that colour becomes `var(--dg-ink)`.
"""

from __future__ import annotations

import re

_VARIABLES = {
    "ink": "primaryTextColor secondaryTextColor tertiaryTextColor textColor nodeTextColor"
    " noteTextColor actorTextColor signalTextColor labelTextColor loopTextColor titleColor"
    " transitionLabelColor stateLabelColor classText relationLabelColor",
    "line": "lineColor arrowheadColor defaultLinkColor signalColor transitionColor"
    " relationColor specialStateColor",
    "node": "primaryColor mainBkg nodeBkg actorBkg stateBkg labelBoxBkgColor"
    " labelBackgroundColor compositeTitleBackground",
    "node-line": "primaryBorderColor nodeBorder actorBorder labelBoxBorderColor"
    " compositeBorder innerEndBackground activationBorderColor border1",
    "note": "noteBkgColor",
    "note-line": "noteBorderColor",
    "group": "secondaryColor tertiaryColor clusterBkg altBackground rectBkgColor",
    "group-line": "actorLineColor secondaryBorderColor tertiaryBorderColor clusterBorder border2"
    " flowContainerStroke",
    "active": "activationBkgColor",
    "paper": "background edgeLabelBackground compositeBackground sequenceNumberColor"
    " relationLabelBackground",
}
_PACKET = {
    "startByteColor": "ink",
    "endByteColor": "ink",
    "labelColor": "ink",
    "titleColor": "ink",
    "blockStrokeColor": "node-line",
    "blockFillColor": "node",
}
# Colours Mermaid 12 writes into attributes whatever the theme says.
_HARD_WIRED = {
    "#eaeaea": "node",
    "#666": "node-line",
    "#999": "line",
    "#edf2ae": "note",
    "#000": "line",
    "#000000": "line",
    "black": "line",
    "#333": "ink",
    "#fff": "paper",
    "white": "paper",
}
_SENTINELS = {token: f"#5e00{index:02x}" for index, token in enumerate(_VARIABLES, 17)}
_HEX = re.compile(r"#[0-9a-f]{6}\b|#[0-9a-f]{3}\b", re.I)
_FUNCTION = re.compile(r"rgba?\(\s*(\d+)[\s,]+(\d+)[\s,]+(\d+)[^)]*\)|hsla?\([^)]*\)")
_NAMED = re.compile(r"(?<==\")(?:black|white)(?=\")|(?<=: )(?:black|white)(?=[;\"])")


def theme_variables() -> dict[str, object]:
    """Return Mermaid's themeVariables, every colour a sentinel."""
    flat: dict[str, object] = {
        name: _SENTINELS[token] for token, names in _VARIABLES.items() for name in names.split()
    }
    packet = {name: _SENTINELS[token] for name, token in _PACKET.items()}
    sizes = {"labelFontSize": "14px", "byteFontSize": "12px", "titleFontSize": "16px"}
    return {**flat, "packet": packet | sizes, "useGradient": False, "dropShadow": "none"}


def _tokens() -> dict[str, str]:
    sentinels = {colour: token for token, colour in _SENTINELS.items()}
    return {**_HARD_WIRED, **sentinels}


def _hex(match: re.Match[str]) -> str:
    if match[1] is None:
        return match[0]
    return "#" + "".join(f"{int(part):02x}" for part in match.groups())


def to_properties(svg: str) -> tuple[str, set[str]]:
    """Replace colours by custom properties; return the SVG and the colours left over."""
    tokens = _tokens()
    left: set[str] = set()

    def replace(match: re.Match[str]) -> str:
        token = tokens.get(match[0].lower())
        if token is None:
            left.add(match[0])
            return match[0]
        return f"var(--dg-{token})"

    svg = _FUNCTION.sub(_hex, svg)
    svg = re.sub(r"url\(#", "url(@", svg)
    svg = _NAMED.sub(replace, _HEX.sub(replace, svg))
    left.update(match[0] for match in _FUNCTION.finditer(svg))
    return svg.replace("url(@", "url(#"), left
