"""What programs read of the site: true to the pages, and whole without them."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from lxml import html

from scripts import lab_pages, permalinks, reading
from scripts.chapters import Chapter
from scripts.machine import blocks, catalogue, check, code, llms, plain
from scripts.machine.page import Page, Part, read
from scripts.source import Source
from tests import checks
from tests.workshop import CHAPTER, ROOT, Workshop

_SITE = "https://example.net/notes/"
_SENTENCE = re.compile(r"[^。]*[ぁ-ん][^。]*。")
_ITEM = re.compile(r"- \[(?P<title>(?:\\.|[^\[\]])+)\]\((?P<address>[^)]+)\): (?P<told>\S.*)")
Document = dict[str, Any]


@pytest.fixture(scope="module")
def document(site: Path) -> Document:
    """Give the published catalogue."""
    found: Document = json.loads((site / catalogue.NAME).read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def schema(site: Path) -> Document:
    """Give the published schema."""
    found: Document = json.loads((site / catalogue.SCHEMA).read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def offered(site: Path) -> permalinks.Site:
    """Give what the published site offers to link to."""
    return permalinks.read_site(site)


def _copies(site: Path) -> dict[str, str]:
    """Return the Markdown copies by the address of their page on the site."""
    return {
        f"/{path.parent.relative_to(site).as_posix()}/".replace("/./", "/"): path.read_text("utf-8")
        for path in sorted(site.rglob("index.md"))
    }


def _named(found: object) -> Iterator[str]:
    """Yield every address to link to that a catalogue names, at any depth."""
    for key, value in found.items() if isinstance(found, dict) else ():
        if key in ("address", "permalink"):
            yield value
        yield from _named(value)
    for item in found if isinstance(found, list) else ():
        yield from _named(item)


def _lost(links: Iterator[str], address: str, offered: permalinks.Site) -> list[str]:
    """Return the links to pages and anchors of the site that it does not offer."""
    own = {f"/{link.removeprefix(address)}" for link in links if link.startswith(address)}
    return sorted(link for link in own if not offered.carries(link))


# The catalogue.


def test_the_catalogue_keeps_to_its_schema(document: Document, schema: Document) -> None:
    Draft202012Validator.check_schema(schema)
    assert [error.message for error in Draft202012Validator(schema).iter_errors(document)] == []
    assert document["schema"] == schema["$id"] == document["address"] + catalogue.SCHEMA


def _without_a_title(document: Document) -> None:
    del document["pages"][1]["title"]


def _with_an_unknown_field(document: Document) -> None:
    document["pages"][1]["author"] = "名前"


def _with_a_relative_permalink(document: Document) -> None:
    document["pages"][1]["sections"][0]["permalink"] = "#conclusion"


def _with_minutes_as_text(document: Document) -> None:
    document["pages"][1]["minutes"] = "3分"


def _of_another_version(document: Document) -> None:
    document["generated"] = catalogue.VERSION + 1


@pytest.mark.parametrize(
    "broken",
    [
        _without_a_title,
        _with_an_unknown_field,
        _with_a_relative_permalink,
        _with_minutes_as_text,
        _of_another_version,
    ],
)
def test_another_catalogue_does_not(
    broken: Callable[[Document], None], document: Document, schema: Document
) -> None:
    other = copy.deepcopy(document)
    broken(other)
    assert len(list(Draft202012Validator(schema).iter_errors(other))) == 1


def _undescribed(found: object, place: str = "") -> list[str]:
    """Return the fields and types of a schema without one Japanese sentence."""
    if not isinstance(found, dict):
        return []
    wrong = []
    for group in ("properties", "$defs"):
        for name, field in found.get(group, {}).items():
            told = str(field.get("description", ""))
            wrong += [] if _SENTENCE.fullmatch(told) else [f"{place}/{name}"]
            wrong += _undescribed(field, f"{place}/{name}")
    return wrong


def test_every_field_of_the_schema_is_described_in_one_sentence(schema: Document) -> None:
    assert _undescribed(schema) == []


@pytest.mark.parametrize(
    "told", [{}, {"description": "a page"}, {"description": "甲です。乙です。"}]
)
def test_a_field_described_otherwise_would_be_noticed(told: Document, schema: Document) -> None:
    page = schema["$defs"]["page"]
    other = {**page, "properties": {**page["properties"], "title": told}}
    assert _undescribed({"$defs": {"page": {"description": "頁です。", **other}}}) == [
        "/page/title"
    ]


def test_the_catalogue_has_every_page_of_the_site(site: Path, document: Document) -> None:
    listed = {"/" + p["address"].removeprefix(document["address"]) for p in document["pages"]}
    assert listed == {page for page in checks.pages_of(site) if page.endswith("/")}


def test_every_address_of_the_catalogue_leads_where_it_says(
    document: Document, offered: permalinks.Site
) -> None:
    assert _lost(_named(document), document["address"], offered) == []


def test_an_address_that_leads_nowhere_would_be_noticed(
    document: Document, offered: permalinks.Site
) -> None:
    other = copy.deepcopy(document)
    other["pages"][1]["sections"][0]["permalink"] = f"{document['address']}os/#nowhere"
    assert _lost(_named(other), document["address"], offered) == ["/os/#nowhere"]


def _titles(site: Path, page: Document, address: str) -> dict[str, str]:
    """Return the headings of a published page as a reader sees them, by id."""
    path = site / page["address"].removeprefix(address) / "index.html"
    built = html.fromstring(path.read_bytes())
    found = {
        one.get("id", ""): "".join(map(str, one.itertext())) for one in built.iter("h2", "h3", "h4")
    }
    return {id_: " ".join(text.removesuffix("#").split()) for id_, text in found.items()}


def test_a_section_is_called_what_the_page_calls_it(site: Path, document: Document) -> None:
    for page in document["pages"]:
        titles = _titles(site, page, document["address"])
        assert {s["id"]: s["title"] for s in page["sections"]} == {
            section["id"]: titles[section["id"]] for section in page["sections"]
        }


def test_the_minutes_are_those_that_readers_are_told(document: Document) -> None:
    page = next(page for page in document["pages"] if page["address"].endswith("/os/process/"))
    text = (ROOT / "docs/os/process.md").read_text(encoding="utf-8")
    chapter = Chapter("os/process.md", Source("docs/os/process.md", text))
    assert page["minutes"] == reading.minutes(chapter)
    told = {section["id"]: section["minutes"] for section in page["sections"]}
    assert told["how-it-works"] == reading.minutes(chapter, "how-it-works")


def test_a_fact_is_what_its_lab_recorded(document: Document) -> None:
    known = {fact: s for record in lab_pages.read() for fact, s in record.facts.items()}
    facts = [fact for page in document["pages"] for fact in page["facts"]]
    assert facts
    for fact in facts:
        assert fact["sentence"] == known[fact["id"]]
        assert fact["id"].startswith(f"{fact['lab']}/")


# The Markdown copies.


def test_every_page_has_a_copy_that_stands_alone(site: Path, document: Document) -> None:
    copies = _copies(site)
    assert copies.keys() == {
        "/" + p["markdown"].removeprefix(document["address"]).removesuffix("index.md")
        for p in document["pages"]
    }
    for address, text in copies.items():
        source = Source(f"site{address}index.md", text)
        problems = check.check(text, source, document["address"], site)
        assert [str(problem) for problem in problems] == []


def test_every_link_of_a_copy_leads_to_a_page_and_its_anchor(
    site: Path, document: Document, offered: permalinks.Site
) -> None:
    for text in _copies(site).values():
        pages = (one for one in check.targets(text) if one.partition("#")[0].endswith("/"))
        assert _lost(pages, document["address"], offered) == []


def test_a_copy_keeps_its_diagrams_with_what_they_say(site: Path) -> None:
    for address, text in _copies(site).items():
        assert text.count("```mermaid\n") <= text.count("accDescr"), address
    assert "  accDescr: " in _copies(site)["/os/process/"]


_BAD = {
    "a reference that nothing defines": ("〔[文書][nowhere]〕", "解けない参照「[nowhere]」"),
    "a snippet that was not put in": ('--8<-- "lab.md:run"', "取り込みの印「--8<--」"),
    "a relative link": ("[章](../os/process.md)", "相対リンク「../os/process.md」"),
    "a relative link in HTML": ('<a href="../">上</a>', "相対リンク「../」"),
    "a page that is not there": (f"[章]({_SITE}nowhere/)", f"「{_SITE}nowhere/」の先がありません"),
    "a file that is not there": (f"[表]({_SITE}a.csv)", f"「{_SITE}a.csv」の先がありません"),
}


@pytest.mark.parametrize("name", _BAD)
def test_a_bad_copy_is_told_with_its_line_and_cure(name: str, tmp_path: Path) -> None:
    bad, says = _BAD[name]
    text = f"文\n\n{bad}\n"
    [problem] = check.check(text, Source("docs/x.md", text), _SITE, tmp_path)
    assert str(problem).startswith("docs/x.md:3: Markdownの写し")
    assert says in problem.what
    assert problem.cure.endswith("ください")


def test_what_stands_in_code_is_left_alone(tmp_path: Path) -> None:
    text = '`[a][b]`と`[c](d.md)`\n\n```text\n--8<-- "x"\n[a](b.md) {#id}\n!!! note\n```\n'
    assert list(check.check(text, Source("x.md", text), _SITE, tmp_path)) == []
    assert plain.copy(_page(text), str).endswith(text)


def test_hidden_code_comes_back_as_it_was() -> None:
    text = "`` a`b ``と`c`\n\n~~~sh\n`\n~~~\n\n- 項\n\n    ```x\n    y\n    ```\n"
    hidden, pieces = code.hide(text)
    assert len(pieces) == 4
    assert "`" not in hidden
    assert "~" not in hidden
    assert code.show(hidden, pieces) == text


def _page(text: str, uri: str = "os/sample.md") -> Page:
    return Page(uri, Source(f"docs/{uri}", text), Part("os", "OS"), _SITE)


def _body(text: str) -> str:
    return plain.copy(_page(text), str).partition("---\n\n")[2]


@pytest.mark.parametrize(
    ("written", "copied"),
    [
        ("## 節 {#section}", "## 節"),
        ("| `x`{ #sym-x } |", "| `x` |"),
        ("| 遅い { #sym-slow } |", "| 遅い |"),
        ("[押す](a.md){ .md-button }", f"[押す]({_SITE}os/a/)"),
        ("[節](#section)", f"[節]({_SITE}os/sample/#section)"),
        ("[節](../network/nat.md#nat)", f"[節]({_SITE}network/nat/#nat)"),
        ("[部](index.md)", f"[部]({_SITE}os/)"),
        ("[初め](../index.md)", f"[初め]({_SITE})"),
        ("[表](../onboarding/a.csv)", f"[表]({_SITE}onboarding/a.csv)"),
        ("[外](https://example.org/a.md)", "[外](https://example.org/a.md)"),
        ("[RFC 1][rfc1]\n\n[RFC1]: https://example.org/1", "[RFC 1](https://example.org/1)"),
        ("[`x`][]\n\n[y]: z", "[`x`][]"),
        ("〔[実験][a/b]〕\n\n[a/b]: ../labs/index.md#a-b", f"〔[実験]({_SITE}labs/#a-b)〕"),
        ('<div class="x" markdown>\n\n表\n\n</div>', "表"),
        ('<input type="checkbox" aria-label="a"> 読む', "読む"),
        ("前\n\n<!-- 注 -->\n\n後", "前\n\n後"),
        ("<form>\n<p>欄</p>\n</form>文", "文"),
    ],
)
def test_markdown_of_the_site_becomes_plain(written: str, copied: str) -> None:
    assert _body(written) == copied + "\n"


@pytest.mark.parametrize(
    ("written", "plainly"),
    [
        ('!!! warning "注意"\n\n    文\n\n後', "**注意**\n\n\n文\n\n後"),
        ('!!! conclusion ""\n\n    文', "\n文"),
        ("!!! warning\n    文", "**Warning**\n\n文"),
        ('??? question "問1. 「"何"」か"\n    答え', '**問1. 「"何"」か**\n\n答え'),
        ('=== "タブ"\n\n    ```sh\n    ls\n    ```', "**タブ**\n\n\n```sh\nls\n```"),
        ('- 項\n\n    !!! note "内"\n        文', "- 項\n\n    **内**\n\n    文"),
        ('!!! note "外"\n    ??? note "内"\n        文', "**外**\n\n**内**\n\n文"),
        ('```text\n!!! note "例"\n    文\n```', '```text\n!!! note "例"\n    文\n```'),
        ('!!! note "空"', "**空**\n"),
        ("題\n===", "題\n==="),
    ],
)
def test_a_block_becomes_a_bold_title_and_its_text(written: str, plainly: str) -> None:
    assert blocks.plain(written) == plainly


def test_of_the_front_matter_only_what_describes_the_page_is_kept() -> None:
    text = "---\ntitle: '題: 1'\ndescription: 説明\nnotes: [N001]\nlabs: [a]\n---\n\n# 題 {#x}\n"
    head = f"---\ntitle: '題: 1'\ndescription: 説明\naddress: {_SITE}os/sample/\n---\n\n"
    assert plain.copy(_page(text), str) == f"{head}# 題\n"


# llms.txt.


def _malformed(text: str) -> list[str]:
    """Return what of the form of llmstxt.org a text does not keep."""
    name, _, rest = text.partition("\n\n> ")
    summary, _, rest = rest.partition("\n\n")
    details, *parts = re.split(r"^## .+\n\n", rest, flags=re.M)
    items = [line for part in parts for line in part.split("\n") if line]
    wrong = [line for line in items if not _ITEM.fullmatch(line)]
    whole = re.fullmatch(r"# \S.*", name) and summary and "\n#" not in f"\n{details}" and items
    return wrong if whole else [*wrong, "題、要約、本文、部の順になっていません"]


def test_llms_txt_keeps_the_form_and_names_every_copy(site: Path, document: Document) -> None:
    text = (site / llms.NAME).read_text(encoding="utf-8")
    assert _malformed(text) == []
    assert document["address"] + catalogue.NAME in text
    found = [item["address"] for item in _ITEM.finditer(text)]
    assert found == [page["markdown"] for page in document["pages"]]


@pytest.mark.parametrize(
    "text", ["", "# 名\n\n## 部\n\n- [題](a): 説明\n", "# 名\n\n> 要約\n\n文\n\n## 部\n\n- 題\n"]
)
def test_another_form_would_be_noticed(text: str) -> None:
    assert _malformed(text)


def test_brackets_in_a_title_do_not_break_its_line() -> None:
    page = _page("---\ntitle: '[S]の意味'\ndescription: 説明\n---\n")
    text = llms.text("名", "要約", _SITE, [page])
    assert _malformed(text) == []
    assert rf"- [\[S\]の意味]({_SITE}os/sample/index.md): 説明" in text


# The build.


def test_a_page_at_the_top_of_the_nav_is_a_part_of_its_own(tmp_path: Path) -> None:
    for name in ("index.md", "os/a.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("---\ntitle: 題\n---\n", encoding="utf-8")
    found = read([{"ホーム": "index.md"}, {"OS": ["os/a.md"]}], _SITE, tmp_path)
    assert [page.part for page in found] == [Part("home", "ホーム"), Part("os", "OS")]
    assert [page.address for page in found] == [_SITE, f"{_SITE}os/a/"]


def test_a_build_writes_what_programs_read_with_the_sites_address(workshop: Workshop) -> None:
    outcome = workshop.build(SITE_URL=_SITE)
    assert outcome.code == 0, outcome.output
    text = workshop.read("site/os/sample/index.md")
    assert f"〔[実験]({_SITE}labs/#sample-holds)〕" in text
    assert "〔[RFC 9293 §3.5](https://www.rfc-editor.org/rfc/rfc9293#section-3.5)〕" in text
    assert "**注記**\n\n```mermaid\nflowchart TD\n  accTitle: 注記の図\n" in text
    document = json.loads(workshop.read(f"site/{catalogue.NAME}"))
    page = next(one for one in document["pages"] if one["title"] == "見本の章")
    assert page["address"] == f"{_SITE}os/sample/"
    assert [fact["id"] for fact in page["facts"]] == ["sample/holds"]
    assert f"]({_SITE}os/sample/index.md): " in workshop.read(f"site/{llms.NAME}")


def test_a_link_that_a_copy_cannot_carry_stops_the_build(workshop: Workshop) -> None:
    line = workshop.replace("説明です", '<a href="../../">初めへ</a>。説明です')
    outcome = workshop.build()
    assert outcome.code == 1
    assert f"{CHAPTER}:{line}: Markdownの写しに、相対リンク「../../」が残ります" in outcome.output
    assert "「[文字](ページ.md#id)」の形で書いてください" in outcome.output
    assert not (workshop.folder / "site").exists()


def test_a_copy_on_a_disk_has_none_of_this(workshop: Workshop) -> None:
    assert workshop.build(OFFLINE="true").code == 0
    site = workshop.folder / "site"
    assert list(site.rglob("*.md")) == []
    for name in (catalogue.NAME, catalogue.SCHEMA, llms.NAME):
        assert not (site / name).exists()
