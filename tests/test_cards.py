"""The pictures beside a link: every page names one, and its words are really drawn on it."""

from __future__ import annotations

import base64
import hashlib
import struct
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from lxml import html as markup
from playwright.sync_api import Browser

from scripts import chromium
from scripts.cards import painter
from scripts.cards.painter import SIZE, Card
from tests import checks
from tests.workshop import CHAPTER, ROOT, Workshop

_PAGES = [url for url in checks.pages_of(ROOT / "site") if url != "/404.html"]
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_WANTED = ("og:title", "og:description", "og:image", "og:image:alt")
_CARD = Card("見本の名", "見本の部", "日本語の題名", "日本語の説明です。")
# Where ink stands: the share of the title's band, and how near words come to the edges.
_INK = """async (source) => {
  const image = Object.assign(new Image(), { src: `data:image/png;base64,${source}` });
  await image.decode();
  const [width, height] = [image.naturalWidth, image.naturalHeight];
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const brush = canvas.getContext("2d");
  brush.drawImage(image, 0, 0);
  const { data } = brush.getImageData(0, 0, width, height);
  const inked = (x, y) => data[4 * (y * width + x)] < 200;
  let [title, right, bottom] = [0, 0, 0];
  for (let y = 0; y < height; y++)
    for (let x = 40; x < width; x++)
      if (inked(x, y)) {
        title += y >= 190 && y < 300;
        [right, bottom] = [Math.max(right, x), Math.max(bottom, y)];
      }
  return { title, right, bottom };
}"""


@dataclass(frozen=True)
class Ink:
    """Dark pixels in the band of the title, and the last column and row that have any."""

    title: int
    right: int
    bottom: int


def _size(picture: bytes) -> tuple[int, int] | None:
    """Return what a PNG's header says of its size in px; None when it is no PNG."""
    if not picture.startswith(_SIGNATURE) or picture[12:16] != b"IHDR":
        return None
    width, height = struct.unpack(">II", picture[16:24])
    return width, height


def _told(page: Path) -> dict[str, str]:
    """Return what a page's head says of itself."""
    found = markup.fromstring(page.read_bytes()).iterfind(".//meta")
    return {m.get("property") or m.get("name") or "": m.get("content") or "" for m in found}


def _picture(site: Path, url: str) -> Path:
    """Return the file behind a page's picture; the address it names is whole."""
    told = _told(site / url.lstrip("/") / "index.html")
    root = told.get("og:url", "").removesuffix(url.lstrip("/"))
    address = told.get("og:image", "")
    return site / address.removeprefix(root) if root and address.startswith(root) else site / "none"


def _wrong(site: Path, url: str) -> list[str]:
    """Return what keeps a link to a page from showing its picture and words."""
    told = _told(site / url.lstrip("/") / "index.html")
    found = [f"{name} is missing" for name in _WANTED if not told.get(name, "").strip()]
    declared = tuple(told.get(f"og:image:{side}") for side in ("width", "height"))
    if declared != tuple(map(str, SIZE)):
        found.append(f"declares {declared}")
    picture = _picture(site, url)
    if not picture.is_file():
        return [*found, f"{told.get('og:image')} is not there"]
    size = _size(picture.read_bytes())
    return [*found, f"is {size}"] if size != (1200, 630) else found


@pytest.mark.parametrize("url", _PAGES)
def test_a_page_names_a_picture_that_is_there(url: str, site: Path) -> None:
    assert _wrong(site, url) == []


@pytest.mark.parametrize("url", _PAGES)
def test_a_picture_is_told_in_words_too(url: str, site: Path) -> None:
    told = _told(site / url.lstrip("/") / "index.html")
    assert told["og:image:alt"] == f"{told['og:title']}: {told['og:description']}"
    assert told["og:image:type"] == "image/png"
    assert told["twitter:card"] == "summary_large_image"


def test_every_page_has_a_picture_of_its_own(site: Path) -> None:
    drawn = {hashlib.sha256(_picture(site, url).read_bytes()).hexdigest() for url in _PAGES}
    assert len(drawn) == len(_PAGES)


def test_every_picture_belongs_to_a_page(site: Path) -> None:
    named = {_picture(site, url) for url in _PAGES}
    assert set((site / "assets/cards").rglob("*.png")) == named


_HEAD = """<!doctype html><head>
<meta property="og:title" content="題"><meta property="og:description" content="説明">
<meta property="og:url" content="https://example.net/notes/os/">
<meta property="og:image" content="https://example.net/notes/assets/cards/os.png">
<meta property="og:image:width" content="1200"><meta property="og:image:height" content="630">
<meta property="og:image:alt" content="題: 説明"></head><body>文</body>"""
_DOCTORED = {
    "no title": ('og:title" content="題"', 'og:title" content=""', "og:title is missing"),
    "no words for the picture": ("題: 説明", " ", "og:image:alt is missing"),
    "no picture": ('property="og:image" ', 'property="x" ', "og:image is missing"),
    "a picture that is not there": ("cards/os.png", "cards/so.png", "so.png is not there"),
    "a picture of another site": ("notes/assets", "other/assets", "os.png is not there"),
    "a size that is not the picture's": ('"630"', '"600"', "declares ('1200', '600')"),
}


@pytest.fixture
def small_site(tmp_path: Path) -> Path:
    """Give a site of one page with its picture."""
    (tmp_path / "os").mkdir()
    (tmp_path / "os/index.html").write_text(_HEAD, encoding="utf-8")
    (tmp_path / "assets/cards").mkdir(parents=True)
    header = _SIGNATURE + struct.pack(">I4sII", 13, b"IHDR", *SIZE)
    (tmp_path / "assets/cards/os.png").write_bytes(header)
    return tmp_path


@pytest.mark.parametrize("name", _DOCTORED)
def test_a_doctored_page_is_found_out(name: str, small_site: Path) -> None:
    assert _wrong(small_site, "/os/") == []
    old, new, says = _DOCTORED[name]
    assert old in _HEAD
    (small_site / "os/index.html").write_text(_HEAD.replace(old, new), encoding="utf-8")
    assert any(says in found for found in _wrong(small_site, "/os/"))


@pytest.mark.parametrize(
    ("picture", "says"),
    [
        (_SIGNATURE + struct.pack(">I4sII", 13, b"IHDR", 630, 1200), "is (630, 1200)"),
        (b"<svg/>", "is None"),
        (b"", "is None"),
    ],
)
def test_a_doctored_picture_is_found_out(picture: bytes, says: str, small_site: Path) -> None:
    (small_site / "assets/cards/os.png").write_bytes(picture)
    assert _wrong(small_site, "/os/") == [says]


# What is drawn


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep pictures in a folder that is empty, and draw from the project's own."""
    monkeypatch.setattr(painter, "CACHE", tmp_path / "cards")
    monkeypatch.chdir(ROOT)


def _drawn(*cards: Card) -> list[bytes]:
    painter.draw(cards)
    return [card.file.read_bytes() for card in cards]


def _inks(browser: Browser, pictures: list[bytes]) -> list[Ink]:
    with browser.new_context() as context:
        page = context.new_page()
        sources = [base64.b64encode(picture).decode() for picture in pictures]
        return [Ink(**page.evaluate(_INK, source)) for source in sources]


@pytest.mark.usefixtures("fresh")
def test_japanese_is_drawn_and_not_boxes_in_its_place() -> None:
    """Two titles of one length would be the same boxes if the letters were missing."""
    drawn = _drawn(*(replace(_CARD, title=title) for title in ("日本語", "英国史", "ぜんぶ")))
    assert len(set(drawn)) == 3
    assert {_size(picture) for picture in drawn} == {SIZE}


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("part", ["site", "part", "title", "description"])
def test_a_card_shows_all_that_it_is_told(part: str) -> None:
    first, second = _drawn(_CARD, replace(_CARD, **{part: "替わり"}))
    assert first != second


@pytest.mark.usefixtures("fresh")
def test_a_title_that_could_break_the_page_that_draws_is_drawn(browser: Browser) -> None:
    titles = ("</script><b>太い", "{波}と`${x}`", '"引用"と&')
    inks = _inks(browser, _drawn(*(replace(_CARD, title=title) for title in titles)))
    assert min(ink.title for ink in inks) > 1000


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("letters", ["長い題名", "Word ", "w"])
def test_words_that_are_too_long_stay_on_the_card(letters: str, browser: Browser) -> None:
    long = replace(_CARD, title=letters * 40, description=letters * 80)
    (ink,) = _inks(browser, _drawn(long))
    assert ink.right < SIZE[0] - 60
    assert ink.bottom < SIZE[1] - 20


def test_no_published_picture_is_empty_or_cut(browser: Browser, site: Path) -> None:
    inks = _inks(browser, [_picture(site, url).read_bytes() for url in _PAGES])
    told = dict(zip(_PAGES, inks, strict=True))
    bad = {
        url: ink
        for url, ink in told.items()
        if ink.title < 1000 or ink.right >= SIZE[0] - 60 or ink.bottom >= SIZE[1] - 20
    }
    assert bad == {}


@pytest.mark.usefixtures("fresh")
def test_an_empty_picture_would_be_noticed(browser: Browser) -> None:
    (ink,) = _inks(browser, _drawn(replace(_CARD, title=" ", description=" ")))
    assert ink.title == 0


@pytest.mark.usefixtures("fresh")
def test_a_card_that_is_kept_is_not_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    (first,) = _drawn(_CARD)
    monkeypatch.setenv(chromium.VARIABLE, "/nonexistent")
    assert _drawn(_CARD) == [first]
    with pytest.raises(chromium.NoChromiumError, match="make browser"):
        painter.draw([replace(_CARD, title="まだ描いていない")])


@pytest.mark.usefixtures("fresh")
def test_a_browser_that_draws_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chromium, "dump_dom", lambda page: '<pre id="drawn"></pre>')
    with pytest.raises(chromium.NoChromiumError, match="もう一度実行してください"):
        painter.draw([_CARD])


# What a build does with them


def test_quotes_and_brackets_reach_those_who_link_unharmed(workshop: Workshop) -> None:
    title, description = '"引用"と<b>と&', '"説明"と<i>です'
    workshop.replace("title: 見本の章", f"title: '{title}'")
    workshop.replace("description: 検査のための小さな章です。", f"description: '{description}'")
    assert workshop.build().code == 0
    told = _told(workshop.folder / "site/os/sample/index.html")
    assert (told["og:title"], told["og:description"]) == (title, description)
    assert told["og:image:alt"] == f"{title}: {description}"
    assert _wrong(workshop.folder / "site", "/os/sample/") == []


def test_a_site_below_a_folder_names_whole_addresses(workshop: Workshop) -> None:
    assert workshop.build(SITE_URL="https://example.net/notes").code == 0
    told = _told(workshop.folder / "site/os/sample/index.html")
    assert told["og:image"] == "https://example.net/notes/assets/cards/os/sample.png"
    assert _wrong(workshop.folder / "site", "/os/sample/") == []


def test_another_title_draws_one_card_anew(workshop: Workshop) -> None:
    assert workshop.build().code == 0
    workshop.replace("title: 見本の章", "title: 別の題の章")
    assert "==> 1枚のカードを描きます" in workshop.build().output


def test_a_build_that_cannot_draw_a_card_does_not_publish(workshop: Workshop) -> None:
    assert workshop.build().code == 0
    before = workshop.read("site/os/sample/index.html")
    workshop.replace("title: 見本の章", "title: まだ描いていない題", CHAPTER)
    outcome = workshop.build(INFRA_NOTES_CHROMIUM="/nonexistent")
    assert outcome.code == 1
    assert "Chromiumが見つかりません" in outcome.output
    assert "make browser" in outcome.output
    assert workshop.read("site/os/sample/index.html") == before


def test_a_copy_on_a_disk_has_no_cards(workshop: Workshop) -> None:
    outcome = workshop.build(OFFLINE="true")
    assert outcome.code == 0, outcome.output
    assert not (workshop.folder / "site/assets/cards").exists()
    told = _told(workshop.folder / "site/os/sample.html")
    assert "og:image" not in told
    assert told["twitter:card"] == "summary"
