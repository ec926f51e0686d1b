"""Building: the same bytes for the same input, and a browser only for new diagrams."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path
from uuid import uuid4

from scripts.diagrams import fence, painter, review
from tests import checks
from tests.workshop import CHAPTER, Workshop

_PAGE = "site/os/sample/index.html"
_NOWHERE = "/nonexistent"
# Dates of the build itself, which are no output of the source.
_DATES = re.compile(rb"<lastmod>[^<]*</lastmod>")
_SKETCH = "flowchart TD\n  accTitle: {0}\n  accDescr: {0}の説明。\n  A[{0}] --> B[終わり]"


def _digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".gz")
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(
            _DATES.sub(b"", path.read_bytes())
        ).hexdigest()
        for path in files
    }


def test_the_same_source_gives_the_same_bytes(workshop: Workshop) -> None:
    assert workshop.build().code == 0
    first = _digests(workshop.folder / "site")
    assert workshop.build().code == 0
    assert _digests(workshop.folder / "site") == first


def test_another_source_gives_other_bytes(workshop: Workshop) -> None:
    assert workshop.build().code == 0
    first = _digests(workshop.folder / "site")
    workshop.replace("説明です", "別の説明です")
    assert workshop.build().code == 0
    then = _digests(workshop.folder / "site")
    changed = {name for name, digest in then.items() if first.get(name) != digest}
    index = {name for name in then if name.startswith("search/index.")}
    page = {"os/sample/index.html", "os/sample/index.md"}
    assert changed == {*page, "search/search_index.json", *index}


def test_a_drawing_does_not_depend_on_what_is_drawn_with_it() -> None:
    names = ["甲", "乙", "丙"]
    sources = [_SKETCH.format(name) for name in names]
    together = painter.draw(sources, {})
    shuffled = painter.draw(sources[::-1], {})[::-1]
    assert together == shuffled
    assert painter.draw(sources[1:2], {}) == together[1:2]


def test_a_warm_build_starts_no_browser(workshop: Workshop) -> None:
    assert workshop.build().code == 0
    warm = workshop.build(INFRA_NOTES_CHROMIUM=_NOWHERE)
    assert warm.code == 0, warm.output
    assert "図を描きます" not in warm.output


def test_only_a_changed_diagram_is_drawn_again(workshop: Workshop) -> None:
    assert workshop.build().code == 0
    workshop.replace("A->>B: 依頼", f"A->>B: 依頼{uuid4().hex[:6]}")
    again = workshop.build()
    assert "==> 1枚の図を描きます" in again.output


def test_fences_in_lists_notes_and_tabs_become_figures_with_their_own_ids(
    workshop: Workshop,
) -> None:
    assert workshop.build().code == 0
    page = workshop.read(_PAGE)
    fences = fence.find_fences(workshop.read(CHAPTER), CHAPTER)
    assert page.count('<figure class="diagram"') == len(fences) == 5
    assert checks.bad_ids(page) == []
    assert checks.unnamed_diagrams(page) == []
    assert "```" not in page


def test_a_published_page_carries_no_mermaid(workshop: Workshop) -> None:
    assert workshop.build().code == 0
    assert checks.mermaid(workshop.read(_PAGE)) == []
    assert list((workshop.folder / "site").rglob("mermaid*")) == []


def test_a_repository_given_in_the_environment_is_offered_for_editing(workshop: Workshop) -> None:
    given = {"SITE_URL": "https://example.net/notes/", "REPO_URL": "https://example.net/repo"}
    assert workshop.build(**given).code == 0
    page = workshop.read(_PAGE)
    assert 'href="https://example.net/repo/edit/main/docs/os/sample.md"' in page
    assert '<link rel="canonical" href="https://example.net/notes/os/sample/">' in page
    assert workshop.build().code == 0
    assert "/edit/main/" not in workshop.read(_PAGE)


def test_a_plain_strict_build_needs_no_browser(workshop: Workshop) -> None:
    shutil.rmtree(workshop.folder / ".cache", ignore_errors=True)
    done = workshop.run("-m", "mkdocs", "build", "--strict", INFRA_NOTES_CHROMIUM=_NOWHERE)
    assert done.code == 0, done.output
    assert 'class="mermaid"' in workshop.read(_PAGE)


def _fenced(source: str) -> str:
    return f"```mermaid\n{source}\n```\n\n"


def test_a_diagram_that_would_shrink_on_a_phone_is_refused() -> None:
    wide = "flowchart LR\n  accTitle: 横\n  accDescr: 横に並ぶ。\n  " + " --> ".join(
        f"N{n}[長い名前の箱{n}]" for n in range(9)
    )
    tall = wide.replace("LR", "TD")
    problems, _ = review.review(fence.find_fences(_fenced(wide) + _fenced(tall), "x.md"), {})
    assert [problem.line for problem in problems] == [1]
