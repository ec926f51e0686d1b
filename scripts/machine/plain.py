"""A page as plain Markdown that stands alone: nothing to include, to look up or to resolve."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import markdown
import yaml

from scripts.machine import blocks, code
from scripts.machine.page import Page

_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.S)
_SNIPPETS = "pymdownx.snippets"
_DEFINED = re.compile(r"^ {0,3}\[(?P<label>[^\]^][^\]]*)\]:[ \t]*(?P<target>\S+).*\n?", re.M)
_CITED = re.compile(r"\[(?P<text>[^\[\]]*)\]\[(?P<label>[^\[\]]*)\]")
_LINK = re.compile(r"\]\((?P<target>[^)\s]+)")
_ATTRIBUTES = re.compile(r" *\{:? *[#.][^{}\n]*\}")
# What only a browser makes use of: a form with all in it, of others the marks alone.
_BROWSER = re.compile(
    r"<!--.*?-->|<form\b.*?</form>|<input\b[^>]*> ?|</?(?:div|p|small|span)\b[^>]*>", re.S
)
_EMPTY = re.compile(r"\n(?:[ \t]*\n){2,}")


def expander(settings: Mapping[str, Any]) -> Callable[[str], str]:
    """Return what puts snippets into a text, the lists of sources at its end among them."""
    reader = markdown.Markdown(
        extensions=[_SNIPPETS], extension_configs={_SNIPPETS: dict(settings)}
    )
    snippets = reader.preprocessors["snippet"]
    return lambda text: "\n".join(snippets.run(text.split("\n")))


def _head(page: Page) -> str:
    fields = {"title": page.title, "description": page.description, "address": page.address}
    kept = yaml.safe_dump(fields, allow_unicode=True, sort_keys=False, width=1000)
    return f"---\n{kept}---\n\n"


def _inlined(text: str) -> str:
    """Return the text with reference links as inline links, and without the references."""
    targets = {found["label"].lower(): found["target"] for found in _DEFINED.finditer(text)}

    def inline(found: re.Match[str]) -> str:
        target = targets.get((found["label"] or found["text"]).lower())
        return f"[{found['text']}]({target})" if target else found[0]

    return _CITED.sub(inline, _DEFINED.sub("", text))


def _resolved(text: str, page: Page) -> str:
    """Return the text with every link as an absolute address."""
    return _LINK.sub(lambda found: f"]({page.absolute(found['target'])}", text)


def copy(page: Page, expand: Callable[[str], str]) -> str:
    """Return the Markdown copy of a page."""
    body = blocks.plain(expand(_FRONT_MATTER.sub("", page.source.text)))
    text, pieces = code.hide(body)
    bare = _ATTRIBUTES.sub("", _BROWSER.sub("", text))
    linked = _resolved(_inlined(bare), page)
    return _head(page) + code.show(_EMPTY.sub("\n\n", linked), pieces).strip() + "\n"
