"""Every primary source by kind, with the pages that cite it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from scripts.chapters import Chapter

PAGE = Path("docs/appendix/references.md")
SOURCES = Path("includes/sources.md")
_DEFINED = re.compile(r"^\[(?P<label>[^\]]+)\]:\s*(?P<url>\S+)", re.M)
_RFC = re.compile(r"rfc(?P<number>\d+)(?:-(?P<section>[\d.]+))?")
_CITED = re.compile(r"\[(?P<text>[^\]\[]+)\]\[(?P<label>[^\]/]+)\]")
# What a host publishes; the first kind that has it wins, the last takes the rest.
_KINDS = {
    "rfc": ("RFCとIANA", ("rfc-editor.org", "ietf.org", "iana.org")),
    "man": ("manページ", ("man7.org", "manpages.debian.org")),
    "kernel": ("Linuxカーネル", ("kernel.org", "github.com/torvalds/linux")),
    "database": (
        "データベースのマニュアル",
        ("postgresql.org", "mysql.com", "mariadb.com", "mariadb.org"),
    ),
    "cloud": ("クラウドの文書", ("amazon.com", "google.com", "microsoft.com")),
    "product": ("そのほかの製品と規格", ("",)),
}
_HEAD = """---
title: 参考文献と一次情報
description: このサイトが引く一次情報{count}件を種類ごとに並べ、どのページが引いているかを示します。
notes: [N002, N003, N004, N016, N030, N031, N141, N142, N158, N159]
search:
  boost: 0.05
---

<!-- includes/sources.mdと各章の引用から作られるページです。 -->

# 参考文献と一次情報 {{#references}}

主張の根拠には、仕様書、manページ、カーネルや製品のマニュアルだけを使います。{count}件を種類ごとに並べました。

## このサイトのもとになった本 {{#book}}

このサイトは、1人の技術者が『インフラエンジニアの教科書2』（佐野裕、シーアンドアール研究所）を読んで取ったメモから育ちました。
本の文と図は載せていません。メモの各行がどのページで答えられているかは、[メモとの対応](notes-map.md)にあります。
"""


@dataclass(frozen=True)
class Work:
    """One document, the places in it that are cited, and the chapters that cite them."""

    url: str
    places: tuple[tuple[str, str], ...]
    chapters: tuple[Chapter, ...]

    @property
    def kind(self) -> str:
        """Return the kind of whoever publishes it."""
        place = urlsplit(self.url).netloc + urlsplit(self.url).path
        return next(id_ for id_, (_, hosts) in _KINDS.items() if any(h in place for h in hosts))

    @property
    def item(self) -> str:
        """Return it as an item of a list."""
        places = "、".join(f"[{name}]({url})" for name, url in self.places)
        pages = "、".join(f"[{c.title}]({_place(c)})" for c in self.chapters)
        return f"- {places}  \n  {pages}\n"


def _place(chapter: Chapter) -> str:
    """Return the link to a page's list of sources, or to the page where it keeps none."""
    return chapter.link("sources" if any(h.id == "sources" for h in chapter.headings) else "")


def _names(texts: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Return what each label's place is called: a name that two would share tells the label."""
    told = {label: max(texts[label], key=len) for label in texts}
    shared = {name for name, count in Counter(told.values()).items() if count > 1}
    return {
        label: _rfc(label) or (f"{name}（{label}）" if name in shared else name)
        for label, name in told.items()
    }


def _rfc(label: str) -> str:
    found = _RFC.fullmatch(label)
    section = f" §{found['section']}" if found and found["section"] else ""
    return f"RFC {found['number']}{section}" if found else ""


def _uses(chapters: list[Chapter]) -> Iterator[tuple[str, str, Chapter]]:
    for chapter in chapters:
        for _, line in chapter.source.prose():
            for found in _CITED.finditer(line):
                yield found["label"].lower(), found["text"], chapter


def read(chapters: list[Chapter], listed: str) -> list[Work]:
    """Return the documents that chapters cite, in their natural order."""
    texts: dict[str, dict[str, None]] = {}
    citing: dict[str, set[str]] = {}
    for label, text, chapter in _uses(chapters):
        texts.setdefault(label, {})[text] = None
        citing.setdefault(label, set()).add(chapter.uri)
    places: dict[str, dict[str, str]] = {}
    for label, url in sorted(_DEFINED.findall(listed), key=_natural):
        if label.lower() in texts:
            places.setdefault(url.split("#")[0], {})[label.lower()] = url
    names = _names(texts)
    return [
        Work(
            document, _places(labels, names), _among(chapters, (citing[label] for label in labels))
        )
        for document, labels in places.items()
    ]


def _places(labels: Mapping[str, str], names: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return each place's name and URL; one that is listed twice is named once."""
    named: dict[str, str] = {}
    for label, url in labels.items():
        named.setdefault(url, names[label])
    return tuple((name, url) for url, name in named.items())


def _among(chapters: list[Chapter], citing: Iterable[set[str]]) -> tuple[Chapter, ...]:
    """Return the chapters that cite, in the order of the table of contents."""
    uris = set[str]().union(*citing)
    return tuple(chapter for chapter in chapters if chapter.uri in uris)


def _natural(listed: tuple[str, str]) -> list[tuple[int, str]]:
    """Sort RFC 959 before RFC 1122."""
    parts = re.findall(r"\d+|\D+", listed[0].lower())
    return [(int(part), "") if part.isdigit() else (0, part) for part in parts]


def page(chapters: list[Chapter], listed: Path = SOURCES) -> str:
    """Return the page."""
    works = read(chapters, listed.read_text(encoding="utf-8"))
    parts = [_HEAD.format(count=len(works))]
    for id_, (name, _) in _KINDS.items():
        items = [work.item for work in works if work.kind == id_]
        if items:
            parts.append(f"## {name} {{#{id_}}}\n\n{len(items)}件。\n\n" + "\n".join(items))
    return "\n".join(parts)
