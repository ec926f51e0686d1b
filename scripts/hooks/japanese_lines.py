"""Join source lines of Japanese text: HTML would show each line break as a space."""

from __future__ import annotations

import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

# CJK symbols and punctuation, kana, ideographs, full-width forms.
_WIDE = r"[\u3000-\u30ff\u4e00-\u9fff\uff00-\uffef]"
_INLINE = r"(?:</?(?:a|code|em|strong|mark|kbd|abbr)\b[^>]*>)*"
_BREAK = re.compile(rf"({_WIDE}{_INLINE})\n(?={_INLINE}{_WIDE})")
_PRE = re.compile(r"(<pre\b.*?</pre>)", re.DOTALL)


def join(html: str) -> str:
    """Return the HTML without line breaks between wide characters, <pre> left alone."""
    parts = _PRE.split(html)
    return "".join(
        part if index % 2 else _BREAK.sub(r"\1", part) for index, part in enumerate(parts)
    )


def on_page_content(content: str, /, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Join the lines of one page."""
    return join(content)
