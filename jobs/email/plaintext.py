"""Plain text made from HTML, for mail readers that don't show HTML."""

from __future__ import annotations

import re
from html.parser import HTMLParser

_PARAGRAPHS = frozenset(
    ["blockquote", "dl", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "ol", "p", "pre", "table", "ul"]
)
_LINES = frozenset(
    ["article", "aside", "dd", "div", "dt", "footer", "header", "li", "main", "nav", "section", "tr"]
)
_UNSHOWN = frozenset(["script", "style", "title"])

PARAGRAPH = 2
"""Line ends between two paragraphs."""


def plaintext(html: str) -> str:
    """The text of `html` without markup: a line per block, and each link followed by its address.

    >>> plaintext('<h1>Hello</h1><p>See <a href="https://example.org">the page</a> &amp; reply</p>')
    'Hello\\n\\nSee the page (https://example.org) & reply\\n'
    """
    reader = _Reader()
    reader.feed(html)
    reader.close()
    text = "".join(reader.pieces).strip("\n")
    text = re.sub(r"[ \t]+\n", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


class _Reader(HTMLParser):
    """Collects the visible text in `pieces`; `blank` counts the line ends at its end."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self.blank = PARAGRAPH
        self.unshown = ""
        self.preformatted = 0
        self.link = ""
        self.link_start = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in _UNSHOWN:
            self.unshown = tag
        elif tag == "br":
            self.end_lines(self.blank + 1)
        else:
            self.end_lines(_ends(tag))
        if tag == "li":
            self.pieces.append("- ")
            self.blank = PARAGRAPH
        elif tag == "pre":
            self.preformatted += 1
        elif tag in {"td", "th"}:
            self.handle_data(" ")
        elif tag == "img":
            self.handle_data(given.get("alt") or "")
        elif tag == "a":
            self.link, self.link_start = given.get("href") or "", len(self.pieces)

    def handle_endtag(self, tag: str) -> None:
        if tag == self.unshown:
            self.unshown = ""
        elif tag == "a" and self.link:
            shown = "".join(self.pieces[self.link_start :]).strip()
            target = self.link.removeprefix("mailto:")
            if target != shown and not target.startswith("#"):
                self.handle_data(f" ({target})")
            self.link = ""
        elif tag == "pre" and self.preformatted:
            self.preformatted -= 1
        self.end_lines(_ends(tag))

    def handle_data(self, data: str) -> None:
        if self.unshown:
            return
        if not self.preformatted:
            data = re.sub(r"[ \t\r\n\f]+", " ", data)
            if self.blank or self.pieces[-1].endswith(" "):
                data = data.removeprefix(" ")
        if data:
            self.pieces.append(data)
            self.blank = 0

    def end_lines(self, wanted: int) -> None:
        """End the text with `wanted` line ends, unless it has them or ends with an item's bullet."""
        self.pieces.append("\n" * (wanted - self.blank))
        self.blank = max(wanted, self.blank)


def _ends(tag: str) -> int:
    """How many line ends separate the content of `tag` from its surroundings."""
    return PARAGRAPH if tag in _PARAGRAPHS else int(tag in _LINES)
