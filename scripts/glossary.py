"""The glossary: one YAML file from which the page, the tooltips and the search draw.

`python -m scripts.glossary` writes the page; the site's build does so by itself.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from scripts import made
from scripts.problem import Problem

FILE = Path("docs/appendix/glossary.yml")
PAGE = Path("docs/appendix/glossary.md")
DEFINITION_LIMIT = 90
SPOKEN = 4  # kana from which a reading is searched for

_PAGE = re.compile(r"(?:^|/)index\.md$|\.md$")
_ID = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_READING = re.compile(r"[ぁ-ゖー]+")
_REQUIRED = ("term", "id", "reading", "english", "definition")
_ROWS = {
    "a": ("あ行", "あいうえおぁぃぅぇぉゔ"),
    "ka": ("か行", "かきくけこがぎぐげご"),
    "sa": ("さ行", "さしすせそざじずぜぞ"),
    "ta": ("た行", "たちつてとだぢづでどっ"),
    "na": ("な行", "なにぬねの"),
    "ha": ("は行", "はひふへほばびぶべぼぱぴぷぺぽ"),
    "ma": ("ま行", "まみむめも"),
    "ya": ("や行", "やゆよゃゅょ"),
    "ra": ("ら行", "らりるれろ"),
    "wa": ("わ行", "わをんゎ"),
    "latin": ("英字と数字", ""),
}
_HEAD = """---
title: 用語集
description: 用語{count}語を、読み、英語、別の言い方、短い説明とともに五十音順で並べました。
search:
  boost: 0.08
---

<!-- {source}から作られるページです。直すときはそちらを直してください。 -->

# 用語集 {{#glossary}}

{count}語あります。五十音の後に、英字と数字で始まる語を並べました。本文では、最初に出てきた用語に点線が付き、指すと説明が出ます。

"""


@dataclass(frozen=True)
class Term:
    """One concept; `line` is where it stands in the file, `also` what people call it too."""

    line: int
    term: str
    id: str
    reading: str
    english: str
    definition: str
    also: tuple[str, ...] = ()
    abbr: tuple[str, ...] | None = None
    see: str = ""

    @property
    def spellings(self) -> tuple[str, ...]:
        """Return everything that a search takes for this concept."""
        return tuple(dict.fromkeys((self.term, self.english, *self.also)))

    @property
    def equivalents(self) -> tuple[str, ...]:
        """Return the spellings, and the reading where it is long enough to mean one thing."""
        spoken = (self.reading,) if len(self.reading) >= SPOKEN else ()
        return tuple(dict.fromkeys((*self.spellings, *spoken)))

    @property
    def home(self) -> str:
        """Return the address, below the site's, of the section that explains it, or ""."""
        path, mark, anchor = self.see.partition("#")
        return _PAGE.sub("/", path) + mark + anchor

    @property
    def tooltips(self) -> tuple[str, ...]:
        """Return the spellings that are explained where a page first uses them."""
        return (self.term,) if self.abbr is None else self.abbr

    @property
    def row(self) -> str:
        """Return the id of the group it is listed in."""
        if self.term[0].isascii():
            return "latin"
        return next(id_ for id_, (_, kana) in _ROWS.items() if self.reading[0] in kana)


def folded(spelling: str) -> str:
    """Return a spelling as the search sees it; roughly what scripts/search/fold.js does."""
    text = unicodedata.normalize("NFKC", spelling).lower()
    return re.sub(r"[\s\-_・\u2010-\u2015]", "", text)


def _entries(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    values: list[dict[str, Any]] = yaml.safe_load(path.read_text(encoding="utf-8")) or []
    for node, entry in zip(root.value if root else (), values, strict=True):
        yield node.start_mark.line + 1, entry


def _gaps(path: Path, line: int, entry: Mapping[str, Any]) -> Iterator[Problem]:
    for name in _REQUIRED:
        if not entry.get(name):
            cure = f"「{name}: …」を書いてください"
            term = entry.get("term", "用語")
            yield Problem(str(path), line, f"「{term}」に{name}がありません", cure)


def _term(line: int, entry: Mapping[str, Any]) -> Term:
    text = {name: str(entry[name]) for name in _REQUIRED}
    abbr = entry.get("abbr")
    return Term(
        line,
        **text,
        also=tuple(map(str, entry.get("also") or ())),
        abbr=None if abbr is None else tuple(map(str, abbr)),
        see=str(entry.get("see") or ""),
    )


def read(path: Path = FILE) -> tuple[list[Term], list[Problem]]:
    """Return the complete entries, and the problems of all."""
    terms: list[Term] = []
    problems: list[Problem] = []
    for line, entry in _entries(path) if path.is_file() else ():
        gaps = list(_gaps(path, line, entry))
        problems += gaps
        if not gaps:
            terms.append(_term(line, entry))
    problems += [problem for term in terms for problem in _form(path, term)]
    return terms, [*problems, *_doubles(path, terms)]


def _form(path: Path, term: Term) -> Iterator[Problem]:
    wrong = {
        f"id「{term.id}」が英小文字・数字・ハイフンではありません": not _ID.fullmatch(term.id),
        f"読み「{term.reading}」がひらがなではありません": not _READING.fullmatch(term.reading),
        f"説明が{len(term.definition)}字あります": len(term.definition) > DEFINITION_LIMIT,
    }
    cures = ("英語のidにしてください", "ひらがなで", f"{DEFINITION_LIMIT}字以内にしてください")
    for (what, is_wrong), cure in zip(wrong.items(), cures, strict=True):
        if is_wrong:
            yield Problem(str(path), term.line, f"「{term.term}」: {what}", cure)


def _doubles(path: Path, terms: list[Term]) -> Iterator[Problem]:
    ids: dict[str, Term] = {}
    spellings: dict[str, Term] = {}
    for term in terms:
        if ids.setdefault(term.id, term) is not term:
            cure = "別のidにしてください"
            yield Problem(str(path), term.line, f"id「{term.id}」がもうあります", cure)
        for spelling in term.spellings:
            first = spellings.setdefault(folded(spelling), term)
            if first is not term:
                what = f"「{spelling}」は{first.line}行目の「{first.term}」と重なります"
                cure = "どちらかから消すか、1つの項目にまとめてください"
                yield Problem(str(path), term.line, what, cure)


def lost(terms: list[Term], anchors: Mapping[str, set[str]], path: Path = FILE) -> list[Problem]:
    """Return entries whose section is not there; `anchors` are the ids of each page's headings."""
    found = []
    for term in terms:
        page, _, anchor = term.see.partition("#")
        if page and (page not in anchors or (anchor and anchor not in anchors[page])):
            what = f"「{term.term}」のseeの先「{term.see}」がありません"
            cure = "章のファイル名と見出しのidを確かめてください"
            found.append(Problem(str(path), term.line, what, cure))
    return found


def _entry(term: Term) -> str:
    others = "、".join(spelling for spelling in term.spellings[1:] if spelling != term.english)
    about = f"{term.reading}／{term.english}" if term.english != term.term else term.reading
    also = f"\n\n別の言い方: {others.replace('<', '&lt;')}" if others else ""
    see = f" → [説明している節](../{term.see})" if term.see else ""
    said = f"{term.definition}{see}{also}"
    return f"### {term.term} {{#{term.id}}}\n\n<small>{about}</small>\n\n{said}\n"


def _order(term: Term) -> tuple[str, str]:
    return (term.term.lower() if term.row == "latin" else term.reading, term.id)


def page(terms: list[Term]) -> str:
    """Return the page's Markdown: by 五十音, then Latin letters, every term an anchor."""
    parts = [_HEAD.format(count=len(terms), source=FILE.name)]
    for id_, (name, _) in _ROWS.items():
        listed = sorted((term for term in terms if term.row == id_), key=_order)
        if listed:
            parts += [f"## {name} {{#row-{id_}}}\n", *map(_entry, listed)]
    return "\n".join(parts)


def write(terms: list[Term], path: Path = PAGE) -> None:
    """Write the page, unless it stands so already: a preview would build again."""
    made.write(path, page(terms))


if __name__ == "__main__":
    write(read()[0])
