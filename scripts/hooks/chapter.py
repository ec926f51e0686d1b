"""Hold every chapter to the standard: front matter, sections in order, sourced corrections."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

from scripts.problem import Problem, stop_on
from scripts.source import Source

DESCRIPTION_LIMIT = 120
_SECTION = 2  # a chapter's sections are its second-level headings
_PARTS = re.compile(r"(?:protocols|os|network|database)/(?!index\.md)")
_SECTIONS = {
    "conclusion": "結論",
    "diagram": "図",
    "how-it-works": "しくみ",
    "hands-on": "手を動かす",
    "in-the-field": "現場では",
    "misconceptions": "よくある誤解",
    "questions": "確認問題",
    "sources": "一次情報",
}
_FIELDS = {
    "title": "ページの題名",
    "description": f"{DESCRIPTION_LIMIT}字以内の説明",
    "tags": "タグ",
    "notes": "答えるメモの番号",
}
_problems: list[Problem] = []


def on_pre_build(*, config: MkDocsConfig) -> None:
    """Start with no problems."""
    _problems.clear()


def _front_matter(source: Source, fields: dict[str, str]) -> Iterator[Problem]:
    for name, meaning in fields.items():
        if source.front_matter.get(name) in (None, ""):  # an empty list says: none of the notes
            cure = f"ファイルの先頭の「---」の間に「{name}: {meaning}」を書いてください"
            yield Problem(source.path, 1, f"前付けに{name}がありません", cure)
    length = len(str(source.front_matter.get("description", "")))
    if length > DESCRIPTION_LIMIT:
        yield Problem(
            source.path,
            source.line_of("description:"),
            f"descriptionが{length}字あります",
            f"{DESCRIPTION_LIMIT}字以内の1文にしてください",
        )


def _sections(source: Source) -> Iterator[Problem]:
    left_out = source.front_matter.get("without") or []
    wanted = [id_ for id_ in _SECTIONS if id_ not in left_out]
    found = {heading.id: heading.line for heading in source.headings() if heading.level == _SECTION}
    last = 1
    for id_ in wanted:
        name = f"「## {_SECTIONS[id_]} {{#{id_}}}」"
        if id_ not in found:
            yield Problem(source.path, last, f"節{name}がありません", "この後に加えてください")
        elif found[id_] < last:
            cure = f"順は{'・'.join(_SECTIONS[i] for i in wanted)}です"
            yield Problem(source.path, found[id_], f"節{name}の順が違います", cure)
        last = found.get(id_, last)


def _corrections(source: Source) -> Iterator[Problem]:
    """Yield corrections that cite neither a source nor another page."""
    lines = dict(source.numbered())
    for number, line in source.prose():
        if line.startswith("!!! correction"):
            body = []
            for below in range(number + 1, len(lines) + 1):
                if lines[below] and not lines[below].startswith("    "):
                    break
                body.append(lines[below])
            if "](" not in "".join(body) and "][" not in "".join(body):
                cure = "一次情報か実験へのリンクを加えてください"
                yield Problem(source.path, number, "訂正に出典がありません", cure)


def check(source: Source) -> Iterator[Problem]:
    """Yield what keeps a file from being a chapter."""
    yield from _front_matter(source, _FIELDS)
    yield from _sections(source)
    yield from _corrections(source)


def on_page_markdown(markdown: str, /, *, page: Page, config: MkDocsConfig, files: Files) -> None:
    """Check a chapter wholly, any other page for its title and description."""
    if page.file.generated_by:
        return
    source = Source.read(page.file)
    if _PARTS.match(page.file.src_uri):
        _problems.extend(check(source))
    else:
        page_fields = {name: _FIELDS[name] for name in ("title", "description")}
        _problems.extend(_front_matter(source, page_fields))


def on_env(env: object, /, *, config: MkDocsConfig, files: Files) -> None:
    """Stop before anything is written when a chapter falls short."""
    stop_on(_problems)
