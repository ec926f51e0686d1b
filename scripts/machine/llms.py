"""`llms.txt`: the site on one page, in the form of llmstxt.org."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from scripts.machine import catalogue
from scripts.machine.page import Page

NAME = "llms.txt"
_HEAD = """# {name}

> {summary}

引用するときは、根拠にした節のアドレス（{site}chapters.jsonの`sections`の`permalink`）を示してください。公開したアドレスは失われません。
〔実験〕の付いた文は、動かして確かめた事実です。事実のアドレスは、chapters.jsonの`facts`の`permalink`にあります。

- 全ページの題、説明、節、事実の一覧（JSON）: {site}{catalogue}
- その書式（JSON Schema 2020-12）: {site}{schema}
- 各ページのMarkdownの写し: ページのアドレスの後ろに`index.md`を付けたもの
"""


def _line(page: Page) -> str:
    title = page.title.replace("[", r"\[").replace("]", r"\]")
    return f"- [{title}]({page.copy}): {page.description}\n"


def _part(title: str, pages: Iterable[Page]) -> str:
    return f"\n## {title}\n\n" + "".join(map(_line, pages))


def text(name: str, summary: str, site: str, pages: list[Page]) -> str:
    """Return the file; `summary` is one paragraph, `site` the published site's address."""
    head = _HEAD.format(
        name=name,
        summary=summary,
        site=site,
        catalogue=catalogue.NAME,
        schema=catalogue.SCHEMA,
    )
    parts = groupby(pages, lambda page: page.part.title)
    return head + "".join(_part(title, found) for title, found in parts)
