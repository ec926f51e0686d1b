"""The pages gathered from chapters: what is read, what is refused, and where each link arrives."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import urljoin

import pytest
from lxml import html as markup

from scripts import bibliography, chapters, commands, misconceptions, notes, permalinks, symptoms
from scripts.chapters import Chapter
from scripts.source import Source
from tests.workshop import CHAPTER, ROOT, Workshop

_FRONT = "---\ntitle: 見本\n---\n"


def _chapter(text: str, uri: str = "os/sample.md", title: str = "見本") -> Chapter:
    return Chapter(uri, Source(f"docs/{uri}", f"---\ntitle: {title}\n---\n{text}"))


def _symptoms(*rows: str) -> list[symptoms.Symptom]:
    return list(symptoms.read(_chapter("\n".join(["| 見える | 打つ | 読む | する |", *rows]))))


# Symptoms


def test_a_bar_in_code_does_not_part_the_cells_of_a_symptom() -> None:
    (found,) = _symptoms("| `a | b`が遅い{ #sym-slow } | `ps | wc`と\\|の数 | 読む | する |")
    assert (found.id, found.seen, found.run) == ("sym-slow", "`a | b`が遅い", "`ps | wc`と\\|の数")


def test_a_row_without_an_id_and_an_id_in_code_are_no_symptoms() -> None:
    assert _symptoms("| 遅い | `ps` | 読む | する |") == []
    assert _symptoms("```", "| 遅い{ #sym-slow } | `ps` | 読む | する |", "```") == []


def test_a_row_of_a_table_in_a_list_is_a_symptom() -> None:
    assert [one.id for one in _symptoms("    | 遅い {#sym-slow} | `ps` | 読む | する |")] == [
        "sym-slow"
    ]


def test_what_is_seen_becomes_a_link_and_so_carries_no_link_and_no_source() -> None:
    (found,) = _symptoms(
        "| [遅い](#why)〔[RFC 1][rfc1]〕{#sym-slow} | `ps`〔[ps(1)][man-ps.1]〕 | 読む | する |"
    )
    assert (found.seen, found.run) == ("遅い", "`ps`")
    assert found.row == "| [遅い](../os/sample.md#sym-slow) | `ps` | 見本 |\n"


@pytest.mark.parametrize(
    "seen",
    [
        "`Broken pipe`（`EPIPE`）で落ちる",
        "`NO-CARRIER`、`state DOWN`",
        "`page allocation failure: order:`に続く数が1以上",
        "`<defunct>`",
    ],
)
def test_what_a_program_says_is_a_message(seen: str) -> None:
    assert _symptoms(f"| {seen}{{#sym-x}} | `ps` | 読む | する |")[0].is_message


@pytest.mark.parametrize(
    "seen", ["`wa`が高い", "`kill -9`しても消えない", "`kill`（SIGTERM）しても消えない", "遅い"]
)
def test_what_a_sentence_tells_about_is_no_message(seen: str) -> None:
    assert not _symptoms(f"| {seen}{{#sym-x}} | `ps` | 読む | する |")[0].is_message


def test_messages_stand_first_in_alphabetical_order_and_the_rest_by_part() -> None:
    text = "\n".join(
        f"| {seen}{{#sym-{n}}} | 打つ | 読む | する |"
        for n, seen in enumerate(["`Zulu`", "遅い", "`alpha`"])
    )
    page = symptoms.page([_chapter(text)])
    places = [page.index(one) for one in ("3件あります", "`alpha`", "`Zulu`", "## OS", "遅い")]
    assert places == sorted(places)


# Links


@pytest.mark.parametrize(
    ("written", "carried"),
    [
        ("[x](#here)", "[x](../os/sample.md#here)"),
        ("[x](other.md#there)", "[x](../os/other.md#there)"),
        ("[x](../network/nat.md)", "[x](../network/nat.md)"),
        ("[x](index.md)と[`y`](sub/z.md)", "[x](../os/index.md)と[`y`](../os/sub/z.md)"),
        ("[x](https://example.com/a#b)", "[x](https://example.com/a#b)"),
        ("`a[0](b)`", "`a[0](b)`"),
    ],
)
def test_a_link_is_carried_from_the_chapters_folder(written: str, carried: str) -> None:
    assert _chapter("").carried(written) == carried


def test_chapters_come_in_the_order_of_the_nav_and_made_pages_cite_nothing(tmp_path: Path) -> None:
    for uri in ("os/b.md", "os/a.md", "labs/setup.md", "appendix/glossary.md"):
        (tmp_path / uri).parent.mkdir(exist_ok=True)
        (tmp_path / uri).write_text(_FRONT, encoding="utf-8")
    nav = [{"OS": ["os/b.md", {"題": "os/a.md"}]}, "labs/setup.md", "appendix/glossary.md", "no.md"]
    assert [found.uri for found in chapters.read(nav, tmp_path)] == ["os/b.md", "os/a.md"]
    cited = [found.uri for found in chapters.citing(nav, tmp_path)]
    assert cited == ["os/b.md", "os/a.md", "labs/setup.md"]


# Misconceptions


def _truth(*lines: str) -> str:
    body = "\n".join(f"    {line}" for line in lines)
    text = f'### 「誤り」 {{#myth-x}}\n\n!!! correction "実際は"\n\n{body}\n\n## 次 {{#next}}\n'
    (found,) = misconceptions.read(_chapter(f"# 題 {{#top}}\n\n{text}"))
    return found.truth


def test_the_truth_of_a_misconception_is_its_first_sentence() -> None:
    first = "最初の1文だけで、十分に長い説明になっています（と書いてあります。）"
    assert _truth(first + "次の文です。") == first


def test_a_short_first_sentence_takes_the_next_with_it() -> None:
    told = _truth("逆です。クライアントが先に閉じれば、クライアントに残ります。三つ目です。")
    assert told == "逆です。クライアントが先に閉じれば、クライアントに残ります。"


def test_the_truth_leaves_sources_tables_and_lists_out() -> None:
    told = _truth(
        "| a | b |", "- 箇条", "", "出典のある文は、出典を除いて載せます〔[RFC 1。][rfc1]〕。"
    )
    assert told == "出典のある文は、出典を除いて載せます。"


def test_lines_of_the_truth_are_joined_as_they_are_read() -> None:
    told = _truth("TCPが区切ったものは", "segmentです。it is called", "segment、と呼ばれます。")
    assert told == "TCPが区切ったものはsegmentです。it is called segment、と呼ばれます。"


def test_a_correction_without_a_full_stop_is_told_whole() -> None:
    assert _truth("名前がありません") == "名前がありません"


def test_a_claim_is_listed_without_its_brackets_and_links_to_its_chapter() -> None:
    text = "### 「誤り」 {#myth-x}\n\n    詳しくは[別の章](tcp.md#a)にある、長い長い説明です。\n"
    page = misconceptions.page([_chapter(text), _chapter("", "os/none.md", "誤解のない章")])
    assert "1の誤解を集めました" in page
    assert "- [誤り](../os/sample.md#myth-x)  \n  詳しくは[別の章](../os/tcp.md#a)に" in page
    assert "誤解のない章" not in page


# Sources


_LISTED = """[rfc1122-3.2]: https://www.rfc-editor.org/rfc/rfc1122#section-3.2
[rfc959]: https://www.rfc-editor.org/rfc/rfc959
[rfc1122]: https://www.rfc-editor.org/rfc/rfc1122
[man-ps.1]: https://man7.org/linux/man-pages/man1/ps.1.html
[api-a]: https://docs.aws.amazon.com/a.html
[api-b]: https://docs.aws.amazon.com/b.html
[api-b-again]: https://docs.aws.amazon.com/b.html
[unused]: https://example.com/
"""


def _works(*texts: str) -> list[bibliography.Work]:
    found = [_chapter(text, f"os/{n}.md", f"章{n}") for n, text in enumerate(texts)]
    return bibliography.read(found, _LISTED)


def test_rfc_959_stands_before_rfc_1122_and_a_documents_places_together() -> None:
    works = _works("[a][rfc1122-3.2] [b][rfc959] [c][rfc1122]")
    assert [[name for name, _ in work.places] for work in works] == [
        ["RFC 959"],
        ["RFC 1122", "RFC 1122 §3.2"],
    ]


def test_a_document_names_every_page_that_cites_it_once() -> None:
    (work,) = _works(
        "[a][RFC1122-3.2]", "なし", "## 一次情報 {#sources}\n[a][rfc1122] [b][rfc1122]"
    )
    assert work.item.endswith("[章0](../os/0.md)、[章2](../os/2.md#sources)\n")


def test_a_name_that_two_documents_share_tells_them_apart() -> None:
    works = _works("[API][api-a] [API][api-b] [ps(1)][man-ps.1]")
    assert [name for work in works for name, _ in work.places] == [
        "API（api-a）",
        "API（api-b）",
        "ps(1)",
    ]


def test_a_place_that_is_listed_twice_stands_once() -> None:
    (work,) = _works("[記録][api-b] [別名][api-b-again]")
    assert work.places == (("記録", "https://docs.aws.amazon.com/b.html"),)


def test_a_source_that_nobody_cites_and_one_in_code_stay_out() -> None:
    assert _works("```\n[a][unused]\n```\n") == []


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("https://datatracker.ietf.org/doc/html/rfc1", "rfc"),
        ("https://man7.org/linux/man-pages/", "man"),
        ("https://github.com/torvalds/linux/blob/master/README", "kernel"),
        ("https://docs.kernel.org/mm/", "kernel"),
        ("https://www.postgresql.org/docs/17/", "database"),
        ("https://docs.aws.amazon.com/", "cloud"),
        ("https://www.cisco.com/", "product"),
    ],
)
def test_a_document_is_of_the_kind_of_its_publisher(url: str, kind: str) -> None:
    assert bibliography.Work(url, (), ()).kind == kind


# Commands


_COMMANDS = """# 見本
- task: 見る
  id: see
  commands:
    ps: [procps, プロセスの一覧]
    ss: [iproute2, ソケットの一覧]
    "true": [coreutils, 何もせずに成功する]
"""
_EXAMPLE = """## 節 {#section}

`ps`の話と`ps -ef`と`/bin/ps`と`pstree`の話。

```console
$ cd /tmp
$ sudo LANG=C ss -ltn | wc -l
ps: 出力の中の文字
# true
```
"""


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """Give a list of three commands."""
    path = tmp_path / "commands.yml"
    path.write_text(_COMMANDS, encoding="utf-8")
    return path


def test_a_commands_first_use_is_found_in_text_and_after_a_prompt() -> None:
    found = commands.uses(_chapter(_EXAMPLE), {"ps", "ss", "true", "wc"})
    assert [(use.name, use.line, use.anchor) for use in found] == [
        ("ps", 6, "section"),
        ("ss", 10, "section"),
        ("true", 12, "section"),
    ]


def test_commands_that_are_listed_or_built_in_pass(listed: Path) -> None:
    assert list(commands.check([_chapter(_EXAMPLE)], listed)) == []


def test_a_command_is_told_with_its_sections_or_with_how_many(listed: Path) -> None:
    few = [_chapter(_EXAMPLE)]
    page = commands.page(few, listed)
    assert "3個並べました" in page
    assert "| `ps` | プロセスの一覧 | procps | [見本](../os/sample.md#section) |" in page
    many = [_chapter("# 題 {#top}\n`ss`", f"os/{n}.md") for n in range(commands.SHOWN + 1)]
    page = commands.page(many, listed)
    assert f"| `ss` | ソケットの一覧 | iproute2 | {commands.SHOWN + 1}の章 |" in page
    assert "`ps`" not in page


# What a build refuses


_ROW = "| `見本 | 表`が遅い {#sym-slow} | `true` | 読む | する |"
_TABLE = f"| 見える | 打つ | 読む | する |\n|---|---|---|---|\n{_ROW}"
_NAV = """      - os/sample.md
  - 付録:
      - appendix/symptoms.md
      - appendix/misconceptions.md
      - appendix/commands.md
      - appendix/references.md
      - appendix/notes-map.md
"""
_NOTES = """- heading: 見出し
  lines:
    N001: [wrong, os/sample.md]
    N002: [correct, index.md]
"""
_MAP = "docs/appendix/notes.yml"
_LIST = "docs/appendix/commands.yml"
_HOOK = "  - scripts/hooks/notes_map.py\n"


@pytest.fixture
def gathering(workshop: Workshop) -> Workshop:
    """Give a copy whose chapter is gathered."""
    (workshop.folder / "docs/appendix").mkdir()
    workshop.write(_LIST, _COMMANDS)
    workshop.write(
        "docs/appendix/notes-map.md", f"{_FRONT[:-4]}description: 表\n---\n# 表 {{#m}}\n"
    )
    workshop.replace("表の代わりの一文です。", _TABLE)
    workshop.replace("      - os/sample.md\n", _NAV, "mkdocs.yml")
    return workshop


@pytest.fixture
def mapped(workshop: Workshop) -> Workshop:
    """Give a copy whose notes are answered by its two pages."""
    (workshop.folder / "docs/appendix").mkdir()
    workshop.write(_MAP, _NOTES)
    workshop.replace("title: 見本\n", "title: 見本\nnotes: [N002]\n", "docs/index.md")
    nav = "      - os/sample.md\n  - 対応: appendix/notes-map.md\n"
    workshop.replace("      - os/sample.md\n", nav, "mkdocs.yml")
    if _HOOK not in workshop.read("mkdocs.yml"):
        workshop.replace("hooks:", f"hooks:\n{_HOOK}  #", "mkdocs.yml")
    return workshop


@dataclass(frozen=True)
class Break:
    """A change to a file; `path` is what the message names, on the line of the change."""

    path: str
    old: str
    new: str
    says: str
    cure: str


_BREAKS = {
    "a command that the list lacks": Break(
        CHAPTER,
        "$ true",
        "$ sudo frob -a",
        "コマンド「frob」が一覧にありません",
        f"{_LIST}の目的の下に",
    ),
    "a command told in too many parts": Break(
        _LIST,
        "[iproute2, ソ",
        "[iproute2, 網, ソ",
        "コマンド「ss」の説明が読めません",
        "(文の中は「、」)",
    ),
    "a command told without a package": Break(
        _LIST,
        "ps: [procps, プロセスの一覧]",
        "ps: 一覧",
        "コマンド「ps」の説明が読めません",
        "[パッケージ, ",
    ),
    "a bar that parts a symptom": Break(
        CHAPTER,
        "見本 | 表`が",
        "見本`|が",
        "症状「sym-slow」の行にマスが5個あります",
        "文中の|は「`」で囲む",
    ),
    "a symptom without what to do": Break(
        CHAPTER, " | 読む | する |\n\n", " |\n\n", "症状「sym-slow」の行にマスが2個", "対処の4個に"
    ),
}
_NOTE_BREAKS = {
    "a note that its page does not answer": Break(
        _MAP,
        "correct, index.md",
        "correct, os/sample.md",
        "N002に答えるページos/sample.mdがありません",
        "前付けのnotesにN002",
    ),
    "a note whose page is not there": Break(
        _MAP,
        "correct, index.md",
        "correct, os/none.md",
        "N002に答えるページos/none.mdがありません",
        "そのページで答え",
    ),
    "an answer that nobody asked for": Break(
        CHAPTER,
        "notes: [N001]",
        "notes: [N001, N003]",
        "N003は、docs/appendix/notes.ymlではない番号です",
        "notesから除くか",
    ),
    "an answer that another page gives": Break(
        CHAPTER,
        "notes: [N001]",
        "notes: [N001, N002]",
        "N002は、docs/appendix/notes.ymlではindex.mdで答える決まり",
        "notesから除くか",
    ),
    "a note out of order": Break(
        _MAP, "N002:", "N003:", "メモの行N003がN002の場所にあります", "1つずつ"
    ),
    "a verdict that does not exist": Break(
        _MAP, "[correct", "[true-ish", "判定「true-ish」はありません", "correct・imprecise"
    ),
}


def _refused(break_: Break, workshop: Workshop) -> None:
    line = workshop.replace(break_.old, break_.new, break_.path)
    outcome = workshop.build()
    assert outcome.code == 1
    told = re.escape(f"{break_.path}:{line}: ")
    assert re.search(f"^{told}.*{re.escape(break_.says)}", outcome.output, re.M), outcome.output
    assert break_.cure in outcome.output
    assert not (workshop.folder / "site").exists()


@pytest.mark.parametrize("name", _BREAKS)
def test_is_refused_with_its_line_and_cure(name: str, gathering: Workshop) -> None:
    _refused(_BREAKS[name], gathering)


@pytest.mark.parametrize("name", _NOTE_BREAKS)
def test_keeps_the_notes_from_being_mapped(name: str, mapped: Workshop) -> None:
    _refused(_NOTE_BREAKS[name], mapped)


def test_a_chapter_that_changes_changes_what_is_gathered(gathering: Workshop) -> None:
    assert gathering.record().code == 0
    outcome = gathering.build()
    assert outcome.code == 0, outcome.output
    page = gathering.read("site/appendix/symptoms/index.html")
    assert '<a href="../../os/sample/#sym-slow"><code>見本 | 表</code>が遅い</a>' in page
    assert "見本である" in gathering.read("site/appendix/misconceptions/index.html")
    assert "RFC 9293 §3.5" in gathering.read("site/appendix/references/index.html")
    assert "何もせずに成功する" in gathering.read("site/appendix/commands/index.html")
    gathering.replace("### 「見本である」", "### 「手本である」")
    assert gathering.build().code == 0
    assert "手本である" in gathering.read("site/appendix/misconceptions/index.html")


def test_the_map_of_notes_links_what_was_wrong_to_its_correction(mapped: Workshop) -> None:
    assert mapped.record().code == 0
    outcome = mapped.build()
    assert outcome.code == 0, outcome.output
    page = mapped.read("site/appendix/notes-map/index.html")
    assert '<a href="../../os/sample/#misconceptions">見本の章</a>' in page
    assert '<a href="../..">見本</a>' in page or '<a href="../../">見本</a>' in page
    assert "空行を除く2行" in page
    assert "<li>誤り: 1行</li>" in page


def test_every_line_of_the_notes_is_answered_where_it_is_said_to_be() -> None:
    lines = notes.read(ROOT / notes.FILE)
    assert len(lines) == 229
    written = [path.relative_to(ROOT / "docs").as_posix() for path in ROOT.glob("docs/**/*.md")]
    answers = chapters.pages([{"全部": written}], ROOT / "docs")
    assert [str(problem) for problem in notes.check(lines, answers)] == []


# What is published


_GATHERED = ["symptoms", "misconceptions", "commands", "references", "notes-map"]
_PART = re.compile(r"/(?:protocols|os|network|database)/")


@cache
def _article(path: Path) -> markup.HtmlElement:
    return _find(markup.fromstring(path.read_bytes()), "//article")[0]


def _find(element: markup.HtmlElement, path: str) -> list[markup.HtmlElement]:
    found = element.xpath(path)
    return [one for one in found if isinstance(one, markup.HtmlElement)] if found else []


def _pages(site: Path) -> dict[str, markup.HtmlElement]:
    """Return the articles of a site by their URLs; a page that redirects has none."""
    urls = permalinks.read_site(site).anchors
    return {url: _article(site / url.lstrip("/") / "index.html") for url in urls}


def _hrefs(url: str, elements: Iterable[markup.HtmlElement]) -> list[str]:
    """Return where the links in some elements of a page lead, the marks of headings left out."""
    path = ".//a[@href][not(@class='headerlink')]"
    links = [a for element in elements for a in _find(element, path)]
    return [urljoin(url, a.get("href", "")) for a in links]


def _marked(site: Path, prefix: str) -> list[str]:
    """Return the links to every element of a chapter whose id starts so."""
    return [
        f"{url}#{element.get('id')}"
        for url, article in _pages(site).items()
        if _PART.match(url)
        for element in _find(article, f".//*[starts-with(@id, '{prefix}')]")
    ]


def _parts(site: Path, name: str, path: str) -> list[markup.HtmlElement]:
    return _find(_pages(site)[f"/appendix/{name}/"], path)


def _gathered(site: Path, name: str, path: str) -> list[str]:
    return _hrefs(f"/appendix/{name}/", _parts(site, name, path))


def _lost(found: list[str], wanted: list[str]) -> list[str]:
    """Return what is missing, is there too often or is not wanted."""
    there, asked = Counter(found), Counter(wanted)
    return sorted((there - asked) + (asked - there))


def _counted(site: Path, name: str) -> set[int]:
    """Return the numbers that a gathered page's head and description give for its whole."""
    lead = _parts(site, name, ".//h1/following-sibling::p")[0].text_content()
    described = (ROOT / f"docs/appendix/{name}.md").read_text(encoding="utf-8").split("\n")[2]
    return {
        int(number)
        for text in (lead, described)
        for number in re.findall(r"(\d+)(?:[件個]|の誤解)", text)
    }


@pytest.mark.parametrize("name", _GATHERED)
def test_every_link_of_a_gathered_page_arrives(name: str, site: Path) -> None:
    standing = permalinks.read_site(site)
    links = [link for link in _gathered(site, name, ".") if link.startswith("/")]
    assert len(links) > 100
    assert sorted({link for link in links if not standing.carries(link)}) == []


def test_every_line_of_the_notes_stands_on_the_map_once(site: Path) -> None:
    numbers = [cell.text_content() for cell in _parts(site, "notes-map", ".//td[1]")]
    assert numbers == [f"N{number:03}" for number in range(1, 230)]
    sums = _parts(site, "notes-map", ".//h1/following-sibling::ul[1]/li")
    counted = [int(re.findall(r"(\d+)行", item.text_content())[0]) for item in sums]
    assert (len(counted), sum(counted)) == (len(notes.VERDICTS), len(numbers))


def test_every_symptom_of_every_chapter_stands_on_the_page_once(site: Path) -> None:
    rows = _gathered(site, "symptoms", ".//td[1]")
    assert _lost(rows, _marked(site, "sym-")) == []
    assert _counted(site, "symptoms") == {len(rows)}


def test_a_symptom_never_lost_its_command(site: Path) -> None:
    cells = _parts(site, "symptoms", ".//td")
    assert [cell for cell in cells if not cell.text_content().strip()] == []


def test_every_misconception_of_every_chapter_stands_on_the_page_once(site: Path) -> None:
    url = "/appendix/misconceptions/"
    items = _parts(site, "misconceptions", ".//h3/following-sibling::ul/li")
    claims = [_hrefs(url, [item])[0] for item in items]
    assert _lost(claims, _marked(site, "myth-")) == []
    assert _counted(site, "misconceptions") == {len(items)}


def test_every_command_that_is_listed_and_used_stands_on_the_page_once(site: Path) -> None:
    names = [cell.text_content() for cell in _parts(site, "commands", ".//td[1]")]
    assert [name for name, count in Counter(names).items() if count > 1] == []
    assert _counted(site, "commands") == {len(names)}


def _citing(site: Path) -> dict[str, set[str]]:
    """Return the pages that link each listed source, as they were published."""
    listed = (ROOT / bibliography.SOURCES).read_text(encoding="utf-8")
    citing: dict[str, set[str]] = {
        url: set() for url in re.findall(r"^\[[^\]]+\]:\s*(\S+)", listed, re.M)
    }
    for page, article in _pages(site).items():
        for href in _hrefs(page, [article]):
            if href in citing and not page.startswith("/appendix/"):
                citing[href].add(page)
    return {url: pages for url, pages in citing.items() if pages}


def test_every_source_that_is_cited_stands_once_with_the_pages_that_cite_it(site: Path) -> None:
    url = "/appendix/references/"
    items = _parts(site, "references", ".//h2/following-sibling::ul/li")
    told = [(set(_hrefs(url, [item])), _hrefs(url, [item])) for item in items]
    cited = _citing(site)
    assert len(cited) > 600
    everything = [link for _, links in told for link in links if not link.startswith("/")]
    assert _lost(everything, list(cited)) == []
    for links, _ in told:
        pages = {link.split("#")[0] for link in links if link.startswith("/")}
        assert pages == {page for link in links & set(cited) for page in cited[link]}, links
    assert _counted(site, "references") == {len(items)}


def test_no_two_documents_of_the_references_bear_one_name(site: Path) -> None:
    links = _parts(site, "references", ".//li//a[starts-with(@href, 'http')]")
    names = Counter(link.text_content() for link in links)
    assert [name for name, count in names.items() if count > 1] == []


def test_a_row_that_is_missing_or_stands_twice_would_be_noticed() -> None:
    assert _lost(["/a/#x"], ["/a/#x", "/a/#y"]) == ["/a/#y"]
    assert _lost(["/a/#x", "/a/#x"], ["/a/#x"]) == ["/a/#x"]


def test_a_link_that_does_not_arrive_would_be_noticed(tmp_path: Path) -> None:
    (tmp_path / "os").mkdir()
    (tmp_path / "os/index.html").write_text("<article><p id='a'>x</p></article>", encoding="utf-8")
    standing = permalinks.read_site(tmp_path)
    assert [link for link in ("/os/#a", "/os/#b", "/no/") if not standing.carries(link)] == [
        "/os/#b",
        "/no/",
    ]
