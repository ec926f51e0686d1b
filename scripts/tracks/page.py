"""A track's page: what to do each week, with boxes to tick."""

from __future__ import annotations

import html

from scripts.tracks import checklist
from scripts.tracks.track import Step, Track, Week

_HEAD = """---
title: {title}
description: {summary}
styles: [assets/css/track.css]
scripts: [tracks/board.js]
search:
  boost: 0.2
---

<!-- docs/onboarding/tracks.ymlから作られるページです。直すときはそちらを直してください。 -->

# {title} {{#{id}}}

{summary}

全部で{weeks}週、{steps}項目、約{hours}時間です。読む時間は、日本語を1分に500字、出力を1分に30行とした目安です。

<div class="track" data-track="{id}" markdown>

<div class="track__board" data-part="board" hidden></div>

"""
_WEEK = """## {number}週目: {title} {{#week-{number}}}

約{minutes}分

{steps}
{checklist}
"""
_TAIL = """</div>

## チームで使う {{#for-teams}}

このトラックは、次の形でも取り出せます。リンクはどれも絶対URLなので、そのまま貼れます。

- [Markdownのチェックリスト]({id}-checklist.txt)（GitHub、GitLab、Notion、Slack）
- [CSV]({id}.csv)（表計算、チケット管理）
- [GitHubのIssueフォーム]({id}-issue-form.yml)（`.github/ISSUE_TEMPLATE/`に置く）

使い方は[チームで使う人へ](for-leads.md)にあります。
"""


def _item(step: Step) -> str:
    key = html.escape(f"{step.kind} {step.name}")  # a reader's browser remembers it
    name = html.escape(f"済み: {step.text.replace('`', '')}")
    box = f'<input type="checkbox" data-step="{key}" data-minutes="{step.minutes}"'
    link = f"[{step.text}](../{step.target})"
    told = f"{checklist.KINDS[step.kind]}: {link}（{step.minutes}分）"
    return f'- {box} aria-label="{name}"> {told}\n'


def _week(number: int, week: Week, site: str) -> str:
    return _WEEK.format(
        number=number,
        title=week.title,
        minutes=week.minutes,
        steps="".join(map(_item, week.steps)),
        checklist=_folded("この週をMarkdownのチェックリストで", checklist.week(number, week, site)),
    )


def page(track: Track, site: str) -> str:
    """Return the page; `site` is the address of the published site."""
    head = _HEAD.format(
        id=track.id,
        title=track.title,
        summary=track.summary,
        weeks=len(track.weeks),
        steps=len(track.steps),
        hours=round(track.minutes / 60),
    )
    weeks = "".join(_week(number, week, site) for number, week in enumerate(track.weeks, 1))
    return head + weeks + _TAIL.format(id=track.id)


def overview(tracks: list[Track]) -> str:
    """Return a list of the tracks, for pages beside theirs."""
    return "\n".join(map(_overview_item, tracks))


def _overview_item(track: Track) -> str:
    hours = round(track.minutes / 60)
    size = f"{len(track.weeks)}週、{len(track.steps)}項目、約{hours}時間"
    files = (("Markdown", "-checklist.txt"), ("CSV", ".csv"), ("Issueフォーム", "-issue-form.yml"))
    links = "、".join(f"[{name}]({track.id}{ending})" for name, ending in files)
    lines = (f"[{track.title}]({track.id}.md)（{size}）", track.summary, f"取り出す: {links}")
    return "- " + "  \n  ".join(lines) + "\n"


def checklists(tracks: list[Track], site: str) -> str:
    """Return every track's whole checklist, folded, ready to copy."""
    return "\n".join(_folded(track.title, checklist.whole(track, site)) for track in tracks)


def _folded(title: str, text: str) -> str:
    code = "".join(f"    {line}".rstrip() + "\n" for line in text.rstrip().split("\n"))
    return f'??? example "{title}"\n\n    ````markdown\n{code}    ````\n'
