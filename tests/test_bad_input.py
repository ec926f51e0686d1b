"""Broken sources: each is refused with its file, line and cure, and nothing is published."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.workshop import CHAPTER, Workshop


@dataclass(frozen=True)
class Break:
    """A change to the sample chapter; the problem is reported `offset` lines below it."""

    old: str
    new: str
    says: str
    cure: str
    offset: int = 0


_BREAKS = {
    "a broken message in a sequence diagram": Break(
        "  A->>B: 依頼", "  A->>B 依頼", "文法に合わない行です", "この行を直して"
    ),
    "a broken arrow in a list": Break(
        'L["甲"] --> M["乙"]', 'L["甲"] --> M["乙"', "文法に合わない行です", "この行を直して"
    ),
    "a broken arrow in an admonition": Break(
        'N["丙"] --> O["丁"]', 'N["丙"] ->-> O["丁"]', "文法に合わない行です", "この行を直して"
    ),
    "a broken label in a tab": Break(
        'P["戊"] --> Q["己"]', "P[戊(1)] --> Q", "文法に合わない行です", "この行を直して"
    ),
    "a loop that is never closed": Break(
        "  A->>B: 依頼", "  loop 毎回\n  A->>B: 依頼", "文法に合わない行です", "この行を直して"
    ),
    "a diagram type that does not exist": Break(
        "sequenceDiagram", "sequenceDiagramm", "文法に合わない行です", "この行を直して"
    ),
    "a diagram without a title": Break(
        "  accTitle: やりとり\n", "", "accTitle", "accTitle: 図の題名", -3
    ),
    "a diagram without a description": Break(
        "  accDescr: 依頼と返事が1往復する。\n", "", "accDescr", "accDescr: 図から分かること", -4
    ),
    "a colour in a class": Break(
        'L["甲"] --> M["乙"]',
        'L["甲"] --> M["乙"]\n      classDef hot fill:#f00',
        "色が直接書かれています",
        "色の指定を消し",
        1,
    ),
    "a colour in a style": Break(
        'L["甲"] --> M["乙"]',
        'L["甲"] --> M["乙"]\n      style L stroke:red',
        "色が直接書かれています",
        "色の指定を消し",
        1,
    ),
    "a coloured rectangle": Break(
        "  A->>B: 依頼",
        "  rect rgb(255, 0, 0)\n  A->>B: 依頼\n  end",
        "色が直接書かれています",
        "色の指定を消し",
    ),
    "a diagram too wide for a phone": Break(
        '      L["甲"] --> M["乙"]',
        '      L["とても長い名前の箱が横に"] --- M["並ぶ"]\n'
        '      R["とても長い名前の箱が"]\n      S["さらにとても長い名前の箱が"]',
        "幅360pxの画面では文字が",
        "縦向きにする",
        -4,
    ),
    "a heading without an id": Break(
        "## しくみ {#how-it-works}", "## しくみ", "英語のidがありません", "{#english-id}"
    ),
    "a heading with a Japanese id": Break(
        "{#myth-sample}", "{#誤解}", "英語のidがありません", "{#english-id}"
    ),
    "an id that stands twice": Break(
        "{#myth-sample}", "{#hands-on}", "でも使われています", "一度だけ使うid"
    ),
    "an id that Markdown does not take": Break(
        "表の代わりの一文です。",
        "表の代わりの一文です。{ #sym-lost }続き",
        "id「{ #sym-lost }」が効いていません",
        "すぐ後ろ",
    ),
    "a link to a page that is not there": Break(
        "[結論](#conclusion)", "[結論](nowhere.md)", "nowhere.md", "綴りを直すか"
    ),
    "a link to an anchor that is not there": Break(
        "[結論](#conclusion)", "[結論](#nowhere)", "#nowhere", "綴りを直すか"
    ),
    "a source that is not listed": Break(
        "説明です〔[RFC 9293 §3.5][rfc9293-3.5]〕",
        "説明です〔[RFC 1][rfc1]〕",
        "出典「rfc1」が一覧にありません",
        "includes/sources.md",
    ),
    "a fact that no lab proves": Break(
        "[実験][sample/holds]",
        "[実験][sample/hold]",
        "事実「sample/hold」はありません",
        "sample/holds",
    ),
    "a lab that was never recorded": Break(
        "labs: [sample]", "labs: [sampel]", "実験「sampel」の記録がありません", "labs record"
    ),
    "a script that is not there": Break(
        "labs: [sample]",
        "labs: [sample]\nscripts: [nowhere.js]",
        "プログラム「nowhere.js」を組めません",
        "scripts/の下にある",
        1,
    ),
    "a description that is too long": Break(
        "description: 検査のための小さな章です。",
        f"description: {'長' * 121}",
        "121字あります",
        "120字以内",
    ),
    "a correction without a source": Break(
        "    見本です〔[RFC 9293 §3.5][rfc9293-3.5]〕。",
        "    見本です。",
        "訂正に出典がありません",
        "一次情報か実験へのリンク",
        -2,
    ),
}


@pytest.mark.parametrize("name", _BREAKS)
def test_is_named_with_its_line_and_cure(name: str, workshop: Workshop) -> None:
    break_ = _BREAKS[name]
    line = workshop.replace(break_.old, break_.new) + break_.offset
    outcome = workshop.build()
    assert outcome.code == 1
    assert f"{CHAPTER}:{line}: " in outcome.output, outcome.output
    assert break_.says in outcome.output
    assert break_.cure in outcome.output
    assert not (workshop.folder / "site").exists()


def _missing_description(workshop: Workshop) -> str:
    workshop.replace("description: 検査のための小さな章です。\n", "")
    return f"{CHAPTER}:1: 前付けにdescriptionがありません"


def _missing_section(workshop: Workshop) -> str:
    line = workshop.replace("## 確認問題 {#questions}\n", "")
    above = workshop.read(CHAPTER)[: workshop.read(CHAPTER).index("## よくある誤解")].count("\n")
    assert above < line
    return f"{CHAPTER}:{above + 1}: 節「## 確認問題 {{#questions}}」がありません"


def _sections_out_of_order(workshop: Workshop) -> str:
    line = workshop.replace("## しくみ {#how-it-works}", "## 場所を替える {#swapped}")
    workshop.replace("## 確認問題 {#questions}", "## しくみ {#how-it-works}")
    workshop.replace("## 場所を替える {#swapped}", "## 確認問題 {#questions}")
    late = workshop.read(CHAPTER).split("\n").index("## 手を動かす {#hands-on}") + 1
    assert line < late
    return f"{CHAPTER}:{late}: 節「## 手を動かす {{#hands-on}}」の順が違います"


def _lost_anchor(workshop: Workshop) -> str:
    workshop.replace("{#myth-sample}", "{#myth-renamed}")
    number = workshop.read("permalinks.txt").split().index("/os/sample/#myth-sample") + 1
    return f"permalinks.txt:{number}: 公開済みのリンク /os/sample/#myth-sample が失われます"


def _lost_page(workshop: Workshop) -> str:
    (workshop.folder / CHAPTER).rename(workshop.folder / "docs/os/moved.md")
    workshop.replace("os/sample.md", "os/moved.md", "mkdocs.yml")
    number = workshop.read("permalinks.txt").split().index("/os/sample/") + 1
    return f"permalinks.txt:{number}: 公開済みのリンク /os/sample/ が失われます"


def _new_anchor(workshop: Workshop) -> str:
    workshop.replace("説明です", "### 新しい節 {#brand-new}\n\n説明です")
    number = len(workshop.read("permalinks.txt").split()) + 1
    return f"permalinks.txt:{number}: 新しいリンク /os/sample/#brand-new が一覧にありません"


def _uncited_fact(workshop: Workshop) -> str:
    workshop.replace("〔[実験][sample/holds]〕", "")
    return "labs/sample.py:4: 事実「sample/holds」をどの章も引いていません"


def _page_outside_the_nav(workshop: Workshop) -> str:
    workshop.write("docs/os/stray.md", workshop.read(CHAPTER))
    return "os/stray.md"


_STORIES: dict[str, Callable[[Workshop], str]] = {
    "front matter without a description": _missing_description,
    "a chapter without one of its sections": _missing_section,
    "sections out of order": _sections_out_of_order,
    "a published anchor that is lost": _lost_anchor,
    "a published page that is lost": _lost_page,
    "a new anchor that is not listed": _new_anchor,
    "a fact that no page cites": _uncited_fact,
    "a page that the nav does not name": _page_outside_the_nav,
}


@pytest.mark.parametrize("name", _STORIES)
def test_stops_the_build(name: str, workshop: Workshop) -> None:
    says = _STORIES[name](workshop)
    outcome = workshop.build()
    assert outcome.code == 1
    assert says in outcome.output, outcome.output
    assert not (workshop.folder / "site").exists()


def test_a_build_that_cannot_draw_does_not_publish(workshop: Workshop) -> None:
    workshop.replace("A->>B: 依頼", "A->>B: まだ描いていない依頼")
    outcome = workshop.build(INFRA_NOTES_CHROMIUM="/nonexistent")
    assert outcome.code == 1
    assert "Chromiumが見つかりません" in outcome.output
    assert "make browser" in outcome.output
    assert not (workshop.folder / "site").exists()


def test_a_failed_build_leaves_the_last_good_site_alone(workshop: Workshop) -> None:
    assert workshop.build().code == 0
    before = (workshop.folder / "site/index.html").read_bytes()
    workshop.replace("[結論](#conclusion)", "[結論](#nowhere)")
    assert workshop.build().code == 1
    assert (workshop.folder / "site/index.html").read_bytes() == before


def test_a_fact_may_be_listed_as_not_yet_cited(workshop: Workshop) -> None:
    _uncited_fact(workshop)
    workshop.write("labs/uncited.txt", "sample/holds: 章を書いている途中\n")
    assert workshop.build().code == 0


def test_an_alias_carries_a_lost_anchor_on(workshop: Workshop) -> None:
    workshop.replace("{#myth-sample}", "{#myth-renamed}")
    workshop.replace("説明です", '<span id="myth-sample"></span>説明です')
    assert workshop.record().code == 0
    outcome = workshop.build()
    assert outcome.code == 0, outcome.output


def test_a_redirect_carries_a_lost_page_and_its_anchors_on(workshop: Workshop) -> None:
    _lost_page(workshop)
    workshop.replace(
        "redirect_maps: {}", 'redirect_maps: {"os/sample.md": "os/moved.md"}', "mkdocs.yml"
    )
    assert workshop.record().code == 0
    outcome = workshop.build()
    assert outcome.code == 0, outcome.output
