"""Judge drawn diagrams: what Mermaid refused, what a phone can't show, what has no colour."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from scripts.diagrams import figure, gallery, rule
from scripts.diagrams.fence import Fence
from scripts.diagrams.painter import Drawing, Refusal
from scripts.problem import Problem

# Content width in CSS pixels that Material leaves on a 360 px wide screen (.8rem a side).
PHONE_WIDTH = 328
# Smallest text, in CSS pixels, that stays readable on a phone.
PHONE_TEXT = 10.0


def _refused(fence: Fence, refusal: Refusal) -> Iterator[Problem]:
    lines = fence.source.split("\n")
    line = lines[min(refusal.line, len(lines) - 1)].strip()
    hint = " / ".join(part.strip() for part in refusal.error.split("\n")[-1:])[:160]
    yield Problem(
        fence.path,
        fence.line_of(refusal.line),
        f"Mermaidの文法に合わない行です(「{line}」)",
        f"この行を直してください。Mermaidの言い分: {hint}",
    )


def _too_wide(fence: Fence, drawing: Drawing) -> Iterator[Problem]:
    shown = drawing.text * min(1.0, PHONE_WIDTH / drawing.width)
    if shown < PHONE_TEXT:
        widest = int(drawing.text * PHONE_WIDTH / PHONE_TEXT)
        yield Problem(
            fence.path,
            fence.line,
            f"幅360pxの画面では文字が{shown:.1f}pxになり読めません(図の幅{drawing.width:.0f}px)",
            f"縦向きにする、<br/>で折る、図を分けるなどして幅を{widest}px以下にしてください",
        )


def _uncoloured(fence: Fence, drawing: Drawing) -> Iterator[Problem]:
    stray = ", ".join(sorted(figure.stray_colours(drawing)))
    if stray:
        yield Problem(
            fence.path,
            fence.line,
            f"この種類の図は配色に対応していません(残った色: {stray})",
            "flowchart・sequenceDiagram・stateDiagram-v2・packet・blockのどれかで描いてください",
        )


def _drawn(fence: Fence, outcome: Drawing | Refusal) -> Iterator[Problem]:
    if isinstance(outcome, Refusal):
        yield from _refused(fence, outcome)
        return
    yield from _too_wide(fence, outcome)
    yield from _uncoloured(fence, outcome)


def review(
    fences: Iterable[Fence], author: Mapping[str, object]
) -> tuple[list[Problem], dict[str, Drawing]]:
    """Draw the fences; return what is wrong, and the drawings by source.

    Raises:
        NoChromiumError: when something is to be drawn and no Chromium is there.

    """
    listed = list(fences)
    outcomes = gallery.draw((fence.source for fence in listed), author)
    problems = [problem for fence in listed for problem in rule.check(fence)]
    problems += [p for fence in listed for p in _drawn(fence, outcomes[fence.source])]
    drawings = {s: o for s, o in outcomes.items() if isinstance(o, Drawing)}
    return problems, drawings
