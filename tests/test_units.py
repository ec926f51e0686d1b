"""The small parts, each against the smallest text that can break it."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import chromium, permalinks, publishing
from scripts.diagrams import figure, palette, rule
from scripts.diagrams.fence import Fence, code_lines, find_fences
from scripts.diagrams.painter import Drawing
from scripts.hooks import chapter, headings, japanese_lines, links, references
from scripts.problem import Problem, report
from scripts.source import Source

_NESTED = """文

- 箇条書き

    ```mermaid
    flowchart TD
      A --> B
    ```

````text
```mermaid
これは例
```
````
"""


def _fence(source: str) -> Fence:
    return Fence("x.md", 3, source)


def test_a_fence_in_a_list_is_found_and_an_example_in_a_fence_is_not() -> None:
    assert find_fences(_NESTED, "x.md") == [Fence("x.md", 5, "flowchart TD\n  A --> B")]


def test_lines_of_code_are_known_with_their_marks() -> None:
    assert code_lines(_NESTED) == {5, 6, 7, 8, 10, 11, 12, 13, 14}


def test_a_label_may_stand_on_one_line_or_in_a_block() -> None:
    one = _fence("flowchart TD\n  accTitle: 題\n  accDescr: 説明")
    block = _fence("flowchart TD\n  accTitle: 題\n  accDescr {\n説明\n}")
    assert (one.title, one.description) == (block.title, block.description) == ("題", "説明")


def test_a_line_of_a_diagram_is_a_line_of_the_markdown() -> None:
    assert _fence("a\nb").line_of(1) == 5


@pytest.mark.parametrize(
    "line",
    [
        "classDef x fill:#f00",
        "style A stroke:red",
        "linkStyle 0 stroke:#333",
        "rect rgb(1,2,3)",
        "rect lightblue",
        "%%{init: {'theme': 'dark'}}%%",
        "themeVariables:",
    ],
)
def test_a_literal_colour_is_refused_on_its_line(line: str) -> None:
    fence = _fence(f"flowchart TD\n  accTitle: 題\n  accDescr: 説明\n  {line}")
    assert [problem.line for problem in rule.check(fence)] == [7]


@pytest.mark.parametrize(
    "line", ["A[#番号] --> B", "classDef x stroke-dasharray:4", "Note over A: 色"]
)
def test_what_is_no_colour_is_left_alone(line: str) -> None:
    assert rule.check(_fence(f"flowchart TD\n  accTitle: 題\n  accDescr: 説明\n  {line}")) == []


def test_sentinel_colours_become_properties_and_strays_are_told() -> None:
    variables = palette.theme_variables()
    text, stray = palette.to_properties(f"fill:{variables['primaryTextColor']};stroke:#123456")
    assert "fill:var(--dg-ink)" in text
    assert stray == {"#123456"}


def test_equal_diagrams_on_one_page_get_ids_of_their_own() -> None:
    fence = _fence("flowchart TD")
    assert figure.figure_id(fence, 1) == f"{figure.figure_id(fence)}-2"
    assert figure.figure_id(fence) != figure.figure_id(_fence("flowchart LR"))


def test_coordinates_are_rounded_and_what_people_read_is_not() -> None:
    inner = '<text x="12.34567">10.0.10.254と1.500</text>'
    drawing = Drawing(inner, "", "flowchart", "0 0 1.23456 2", 1.0, 2.0, 16.0)
    drawn = figure.figure(_fence("flowchart TD"), drawing, "dg-1")
    assert '<text x="12.35">10.0.10.254と1.500</text>' in drawn
    assert 'viewBox="0 0 1.23 2"' in drawn


def test_line_breaks_between_japanese_letters_vanish_and_others_stay() -> None:
    assert japanese_lines.join("日本\n語") == "日本語"
    assert japanese_lines.join("日本</a>\n<code>語") == "日本</a><code>語"
    assert japanese_lines.join("two\nwords") == "two\nwords"
    assert japanese_lines.join("<pre>日\n本</pre>") == "<pre>日\n本</pre>"


def test_a_heading_in_code_needs_no_id() -> None:
    text = "# 題 {#title}\n\n```sh\n# 注釈\n```\n\n## 節\n"
    assert [problem.line for problem in headings.check(Source("x.md", text))] == [7]


def test_a_reference_in_code_needs_no_source() -> None:
    text = "`[a][b]`\n\n[RFC][rfc]\n\n[RFC][RFC2]\n"
    assert [p.line for p in references.check(Source("x.md", text), {"rfc2"})] == [3]


def test_a_chapter_may_say_which_section_it_does_without() -> None:
    text = "---\nwithout: [diagram]\n---\n"
    found = [problem.what for problem in chapter.check(Source("x.md", text))]
    assert not any("#diagram" in what for what in found)
    assert any("#conclusion" in what for what in found)


def test_a_dead_link_is_located_and_other_messages_pass(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("一\n[x](b.md)\n", encoding="utf-8")
    message = "Doc file 'a.md' contains a link 'b.md', but the target is not found."
    assert links.located(message, tmp_path).startswith(
        f"{tmp_path.name}/a.md:2: リンク「b.md」の先が"
    )
    assert links.located("別の知らせ", tmp_path) == "別の知らせ"


def test_problems_are_told_once_in_the_order_of_the_file() -> None:
    late, early = Problem("a.md", 9, "遅い", "直す"), Problem("a.md", 2, "早い", "直す")
    assert report([late, early, late]) == "a.md:2: 早い。直す\na.md:9: 遅い。直す"


def _site(folder: Path, body: str) -> permalinks.Site:
    (folder / "p").mkdir()
    (folder / "p/index.html").write_text(body, encoding="utf-8")
    return permalinks.read_site(folder)


def test_anchors_of_the_article_are_links_and_those_of_the_theme_are_not(tmp_path: Path) -> None:
    page = '<body><i id="theme"></i><article><h2 id="ours"></h2><b id="__x"></b></article></body>'
    assert _site(tmp_path, page).links() == {"/p/", "/p/#ours"}


def test_a_redirect_carries_anchors_only_where_they_arrive(tmp_path: Path) -> None:
    site = _site(tmp_path, '<meta http-equiv="refresh" content="0; url=../q/">')
    site.anchors["/q/"] = {"kept"}
    assert site.carries("/p/#kept")
    assert not site.carries("/p/#gone")


def test_recording_adds_and_never_takes_out(tmp_path: Path) -> None:
    path = tmp_path / "permalinks.txt"
    permalinks.record(permalinks.Site({"/a/": set()}), path)
    permalinks.record(permalinks.Site({"/b/": {"x"}}), path)
    assert permalinks.read_list(path) == ["/a/", "/b/", "/b/#x"]


def test_a_named_chromium_that_is_not_there_is_no_chromium(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(chromium.VARIABLE, "/nonexistent")
    assert chromium.find() is None
    with pytest.raises(chromium.NoChromiumError, match="make browser"):
        chromium.require()


def test_publishing_insisted_on_does_not_fall_back_to_a_preview(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(chromium.VARIABLE, "/nonexistent")
    assert not publishing.publishes("build")
    monkeypatch.setenv(publishing.VARIABLE, "1")
    assert publishing.publishes("build")
    assert not publishing.publishes("serve")
