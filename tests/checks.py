"""Checks a published page must pass; each returns what it found wrong, nothing when well."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Page

from scripts.diagrams.fence import find_fences
from tests.workshop import ROOT

# What Markdown, the theme, the forms and Mermaid's pictures put into an article.
_TAGS = (
    "a abbr article aside b blockquote br button circle code dd defs del desc details div dl dt em"
    " ellipse fieldset figcaption figure foreignObject form g h1 h2 h3 h4 h5 h6 hr i img input kbd"
    " label legend li line linearGradient link marker mask nav ol option p path pattern polygon"
    " polyline pre progress rect s script section select small source span stop strong style sub"
    " summary sup svg symbol table tbody td text textarea th thead title tr tspan ul use"
)
_ADDRESS = re.compile(r"\d+(?:\.\d+){3}")
_AXE = ROOT / "node_modules/axe-core/axe.min.js"
_OVERFLOW = """() => {
  const scrolls = (node) => {
    for (let up = node; up && up !== document.body; up = up.parentElement)
      if (/auto|scroll|hidden|clip/.test(getComputedStyle(up).overflowX)) return true;
    return false;
  };
  const wide = [...document.body.querySelectorAll("article *")].filter((node) => {
    const box = node.getBoundingClientRect();
    return box.width && box.right > innerWidth + 1 && !scrolls(node);
  });
  const page = document.documentElement.scrollWidth > innerWidth ? ["the page itself"] : [];
  return page.concat(wide.map((node) => node.outerHTML.slice(0, 120)));
}"""
_FAINT = """() => {
  const canvas = Object.assign(document.createElement("canvas"), {width: 1, height: 1});
  const context = canvas.getContext("2d", {willReadFrequently: true});
  const luminance = (colour) => {
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...context.getImageData(0, 0, 1, 1).data].slice(0, 3)
      .map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a, b) => {
    const [dark, light] = [luminance(a), luminance(b)].sort((x, y) => x - y);
    return (light + 0.05) / (dark + 0.05);
  };
  const grounds = ["paper", "node", "note", "group", "active"];
  const found = [];
  for (const svg of document.querySelectorAll("figure.diagram svg")) {
    const box = svg.getBoundingClientRect();
    if (!box.width || !box.height) found.push(`${svg.id} has no size`);
    const style = getComputedStyle(svg);
    const letters = [...svg.querySelectorAll("text, tspan")].filter((t) => !t.childElementCount);
    for (const text of letters)
      for (const ground of grounds)
        if (contrast(getComputedStyle(text).fill, style.getPropertyValue(`--dg-${ground}`)) < 4.5)
          found.push(`${svg.id}: "${text.textContent}" is faint on --dg-${ground}`);
    const [line, paper] = ["line", "paper"].map((name) => style.getPropertyValue(`--dg-${name}`));
    if (contrast(line, paper) < 3) found.push(`${svg.id}: lines are faint`);
  }
  return found;
}"""


def foreign(urls: list[str], address: str) -> list[str]:
    """Return requests that left the site."""
    return [
        url
        for url in urls
        if urlsplit(url).scheme.startswith("http") and not url.startswith(address)
    ]


def axe(page: Page, *rules: str, code: bool = True) -> list[str]:
    """Return axe violations of some rules, or of all, with the elements they concern.

    Without `code`, what stands in code blocks is left out: thousands of words in a few colours.
    """
    page.evaluate(_AXE.read_text(encoding="utf-8"))
    scope = {"include": ["body"], "exclude": [] if code else [".highlight code"]}
    options = {"runOnly": list(rules)} if rules else {}
    run = "([scope, options]) => axe.run(scope, options)"
    result: dict[str, Any] = page.evaluate(run, [scope, options])
    return [f"{v['id']}: {v['nodes'][0]['html'][:160]}" for v in result["violations"]]


def overflowing(page: Page) -> list[str]:
    """Return what sticks out to the right without a scroller of its own."""
    found: list[str] = page.evaluate(_OVERFLOW)
    return found


def faint_diagrams(page: Page) -> list[str]:
    """Return diagrams without a size, or with text or lines too faint to read."""
    found: list[str] = page.evaluate(_FAINT)
    return found


def bad_ids(html: str) -> list[str]:
    """Return ids that a machine made up, and ids that stand twice."""
    ids = re.findall(r'\sid="([^"]*)"', html)
    made_up = [id_ for id_ in ids if re.fullmatch(r"_\d+", id_)]
    return made_up + [id_ for id_, count in Counter(ids).items() if count > 1]


def mermaid(html: str) -> list[str]:
    """Return traces of Mermaid's JavaScript or of undrawn fences in a page."""
    return re.findall(r"mermaid(?:\.min|\.esm)?\.m?js|class=\"mermaid\"|mermaid\.initialize", html)


def unnamed_diagrams(html: str) -> list[str]:
    """Return diagrams that a screen reader, or a reader of text, could not use."""
    figures = re.findall(r'<figure class="diagram".*?</figure>', html, re.DOTALL)
    wanted = (' role="img"', "<title id=", "<desc id=", "<figcaption", "図を文章で読む")
    return [f"{w} in {figure[:90]}" for figure in figures for w in wanted if w not in figure]


def pages_of(site: Path) -> list[str]:
    """Return the URLs of a built site, the page for what is missing included."""
    folders = [path.parent.relative_to(site).as_posix() for path in site.rglob("index.html")]
    return [*sorted("/" if folder == "." else f"/{folder}/" for folder in folders), "/404.html"]


def lost_addresses(markdown: str, html: str) -> list[str]:
    """Return the IPv4 addresses of a page's diagrams that the drawn diagrams do not show."""
    told = "".join(fence.source for fence in find_fences(markdown, ""))
    drawn = "".join(re.findall(r"<svg class=\"diagram.*?</svg>", html, re.S))
    seen = _ADDRESS.findall(re.sub(r"<desc.*?</desc>|<[^>]+>", " ", drawn))
    return sorted(set(_ADDRESS.findall(told)) - set(seen))


def unknown_tags(html: str) -> list[str]:
    """Return what a browser takes for an element although HTML and SVG have none of that name."""
    article = html.partition("<article")[2].partition("</article>")[0]
    return sorted(set(re.findall(r"<([a-zA-Z][\w-]*)", article)) - set(_TAGS.split()))
