"""The catalogue for programs: every page with its sections, labs and facts (`chapters.json`)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from scripts import lab_pages, reading
from scripts.lab_pages import Record
from scripts.machine.page import Page
from scripts.source import Heading

NAME = "chapters.json"
SCHEMA = "chapters.schema.json"
VERSION = 1  # of the format: one more for every field that comes, goes or changes
_WRITTEN = Path(__file__).with_name(SCHEMA)
_LABS = "labs/#"  # the catalogue of labs, below the site's address
_CITED = re.compile(r"\]\[(?P<fact>[a-z0-9-]+/[a-z0-9-]+)\]")
_LINK = re.compile(r"\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])")
_MARK = re.compile(r"`|\*\*|\\(?=[\\`*_\[\]<>|])")
_TITLE = 1  # level of the page's own title, which is no section


def _plain(text: str) -> str:
    """Return a heading as a reader sees it."""
    return _MARK.sub("", _LINK.sub(r"\1", text))


def _minutes(page: Page, anchor: str = "") -> int | None:
    return reading.minutes(page.chapter, anchor) if page.chapter else None


def _section(page: Page, heading: Heading) -> dict[str, Any]:
    return {
        "id": heading.id,
        "level": heading.level,
        "title": _plain(heading.text),
        "permalink": f"{page.address}#{heading.id}",
        "minutes": _minutes(page, heading.id),
    }


def _sections(page: Page) -> list[dict[str, Any]]:
    found = page.source.headings()
    return [_section(page, one) for one in found if one.id and one.level > _TITLE]


def _labs(page: Page, records: Mapping[str, Record]) -> list[dict[str, Any]]:
    known = [records[id_] for id_ in page.listed("labs") if id_ in records]
    return [
        {
            "id": record.id,
            "title": record.content["title"],
            "permalink": f"{page.site}{_LABS}{record.id}",
        }
        for record in known
    ]


def _facts(page: Page, records: Mapping[str, Record]) -> Iterator[dict[str, Any]]:
    """Yield the facts that a page cites, in the order of their first citation."""
    known = {fact: (record, s) for record in records.values() for fact, s in record.facts.items()}
    cited = (fact for _, line in page.source.prose() for fact in _CITED.findall(line))
    for fact in dict.fromkeys(cited):
        if fact in known:
            record, sentence = known[fact]
            permalink = f"{page.site}{_LABS}{lab_pages.anchor(fact)}"
            yield {"id": fact, "sentence": sentence, "lab": record.id, "permalink": permalink}


def _page(page: Page, records: Mapping[str, Record]) -> dict[str, Any]:
    return {
        "address": page.address,
        "markdown": page.copy,
        "title": page.title,
        "description": page.description,
        "part": {"id": page.part.id, "title": page.part.title},
        "tags": page.listed("tags"),
        "notes": page.listed("notes"),
        "minutes": _minutes(page),
        "labs": _labs(page, records),
        "facts": list(_facts(page, records)),
        "sections": _sections(page),
    }


def document(name: str, site: str, pages: list[Page], records: list[Record]) -> dict[str, Any]:
    """Return the catalogue; `site` is the address of the published site."""
    by_id = {record.id: record for record in records}
    return {
        "schema": site + SCHEMA,
        "generated": VERSION,
        "name": name,
        "address": site,
        "pages": [_page(page, by_id) for page in pages],
    }


def schema(site: str) -> dict[str, Any]:
    """Return the schema under the address that the catalogue names."""
    return {"$id": site + SCHEMA, **json.loads(_WRITTEN.read_text(encoding="utf-8"))}


def text(content: Mapping[str, Any]) -> str:
    """Return either as the file's text."""
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"
