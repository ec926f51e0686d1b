"""The glossary: its file, its page, its tooltips, and entries that are refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts import glossary
from scripts.hooks import glossary as hook
from tests.workshop import ROOT, Workshop

_GOOD = """- term: ゾンビ
  id: zombie
  reading: ぞんび
  english: zombie process
  also: [defunct]
  definition: 終わったのに記録が残るプロセス。
  see: os/sample.md#how-it-works

- term: TCP
  id: tcp
  reading: てぃーしーぴー
  english: Transmission Control Protocol
  definition: 順番どおりに届けるプロトコル。
"""
_FILE = "docs/appendix/glossary.yml"
_BREAKS = {
    "a reading that is missing": ("  reading: ぞんび\n", "", 1, "「ゾンビ」にreadingがありません"),
    "a reading in kanji": ("ぞんび", "存美", 1, "ひらがなではありません"),
    "a target that is not there": ("#how-it-works", "#nowhere", 1, "seeの先"),
    "an equivalent of two concepts": ("[defunct]", "[tcp]", 9, "1行目の「ゾンビ」と重なります"),
    "an id twice": ("id: tcp", "id: zombie", 9, "id「zombie」がもうあります"),
    "a definition that is too long": ("終わった", "終" * 91, 1, "字あります"),
}


@pytest.fixture
def with_glossary(workshop: Workshop) -> Workshop:
    """Give a copy with two terms."""
    (workshop.folder / "docs/appendix").mkdir()
    workshop.write(_FILE, _GOOD)
    workshop.replace("      - os/sample.md\n", _NAV, "mkdocs.yml")
    assert workshop.record().code == 0
    return workshop


_NAV = "      - os/sample.md\n  - 用語集: appendix/glossary.md\n"


@pytest.mark.parametrize("name", _BREAKS)
def test_a_bad_entry_is_named_with_its_line(name: str, with_glossary: Workshop) -> None:
    old, new, line, says = _BREAKS[name]
    with_glossary.replace(old, new, _FILE)
    outcome = with_glossary.build()
    assert outcome.code == 1
    assert re.search(rf"{_FILE}:{line}: .*{re.escape(says)}", outcome.output), outcome.output
    assert not (with_glossary.folder / "site").exists()


def test_a_term_has_an_anchor_and_a_link_to_its_section(with_glossary: Workshop) -> None:
    outcome = with_glossary.build()
    assert outcome.code == 0, outcome.output
    page = with_glossary.read("site/appendix/glossary/index.html")
    assert 'id="zombie"' in page
    assert 'href="../../os/sample/#how-it-works"' in page
    assert page.index('id="row-sa"') < page.index('id="row-latin"') < page.index('id="tcp"')


def test_only_the_first_use_on_a_page_is_explained() -> None:
    hook._terms.clear()
    terms = [glossary.Term(1, "窓", "w", "まど", "window", "説明"), _tcp()]
    hook.prepare(terms)
    html = "<h2>TCP</h2><p><code>TCP</code> TCPとTCP、<a href='x'>窓</a>、SCTCP、窓</p>"
    told = hook.explain(html)
    assert told.count("<abbr") == 2
    assert '</code> <abbr title="順番&quot;">TCP</abbr>とTCP' in told
    assert told.endswith('SCTCP、<abbr title="説明">窓</abbr></p>')


def _tcp() -> glossary.Term:
    return glossary.Term(1, "TCP", "tcp", "てぃーしーぴー", "TCP", '順番"')


def test_the_glossary_is_large_and_whole() -> None:
    terms, problems = glossary.read(ROOT / glossary.FILE)
    assert problems == []
    assert len(terms) >= 120
    assert sum(bool(term.see) for term in terms) >= 60


def test_every_term_is_listed_once(site: Path) -> None:
    page = (site / "appendix/glossary/index.html").read_text(encoding="utf-8")
    terms, _ = glossary.read(ROOT / glossary.FILE)
    assert [term.id for term in terms if page.count(f'<h3 id="{term.id}"') != 1] == []


def test_chapters_explain_their_terms(site: Path) -> None:
    page = (site / "protocols/tcp-connection/index.html").read_text(encoding="utf-8")
    explained = re.findall(r'<abbr title="[^"]+">([^<]+)</abbr>', page)
    assert len(explained) > 10
    assert len(explained) == len(set(explained))
