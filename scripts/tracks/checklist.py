"""Tracks as what teams paste: Markdown checklists, CSV and a GitHub issue form."""

from __future__ import annotations

import csv
import io
import re
from urllib.parse import urljoin

import yaml

from scripts.tracks.track import Step, Track, Week

KINDS = {"read": "読む", "lab": "動かす", "answer": "答える"}
_HEAD = ("週", "種類", "内容", "分", "URL")
_BRACKET = re.compile(r"`[^`]*`|([\[\]])")  # those in code are left alone
_INDEX = re.compile(r"(?:^|(?<=/))index\.md$|\.md$")


def address(step: Step, site: str) -> str:
    """Return a step's absolute address on the published site."""
    path, mark, anchor = step.target.partition("#")
    place = _INDEX.sub(lambda found: "" if found[0] == "index.md" else "/", path)
    return urljoin(site, place) + mark + anchor


def _item(step: Step, site: str) -> str:
    text = _BRACKET.sub(lambda found: f"\\{found[1]}" if found[1] else found[0], step.text)
    return f"- [ ] {KINDS[step.kind]}: [{text}]({address(step, site)})（{step.minutes}分）\n"


def week(number: int, one: Week, site: str) -> str:
    """Return one week as a Markdown checklist."""
    items = "".join(_item(step, site) for step in one.steps)
    return f"### {number}週目: {one.title}（約{one.minutes}分）\n\n{items}"


def whole(track: Track, site: str) -> str:
    """Return a whole track as a Markdown checklist."""
    weeks = "\n".join(week(n, one, site) for n, one in enumerate(track.weeks, 1))
    return f"## {track.title}\n\n{track.summary}\n\n{weeks}"


def table(track: Track, site: str) -> str:
    """Return a track as CSV (RFC 4180), with a mark by which Excel knows UTF-8."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(_HEAD)
    for number, one in enumerate(track.weeks, 1):
        for step in one.steps:
            row = (number, KINDS[step.kind], step.text, step.minutes, address(step, site))
            writer.writerow(row)
    return "\ufeff" + text.getvalue()


def _boxes(number: int, one: Week, site: str) -> dict[str, object]:
    labels = [_item(step, site).removeprefix("- [ ] ").strip() for step in one.steps]
    label = f"{number}週目: {one.title}（約{one.minutes}分）"
    options = [{"label": text} for text in labels]
    return {
        "type": "checkboxes",
        "id": f"week-{number}",
        "attributes": {"label": label, "options": options},
    }


def issue_form(track: Track, site: str) -> str:
    """Return a GitHub issue form: one list of checkboxes a week."""
    intro = {"type": "markdown", "attributes": {"value": track.summary}}
    boxes = [_boxes(number, one, site) for number, one in enumerate(track.weeks, 1)]
    form = {
        "name": f"オンボーディング: {track.title}",
        "description": track.summary,
        "title": f"オンボーディング（{track.title}）: ",
        "labels": ["onboarding"],
        "body": [intro, *boxes],
    }
    return yaml.safe_dump(form, allow_unicode=True, sort_keys=False, width=1000)
