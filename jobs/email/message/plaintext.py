"""Plain text made from HTML, for mail readers that don't show HTML."""

from __future__ import annotations

import re
from html import unescape

_PARAGRAPHS = frozenset(
    ["blockquote", "dl", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "ol", "p", "pre", "table", "ul"]
)
_LINES = frozenset(
    ["article", "aside", "dd", "div", "dt", "footer", "header", "li", "main", "nav", "section", "tr"]
)
_UNSHOWN = frozenset(["script", "style", "title"])

PARAGRAPH = 2
"""Line ends between two paragraphs."""

_TOKEN = re.compile(
    r"(?P<text>(?:[^<]++|<(?![a-z/!?]))++)"
    r"|<(?P<start>[a-z][^\s/>]*)(?P<attributes>(?:[^>\"']++|\"[^\"]*+(?:\"|\Z)|'[^']*+(?:'|\Z))*+)(?:>|\Z)"
    r"|</(?P<end>[a-z][^\s/>]*)[^>]*+(?:>|\Z)"
    r"|<!--(?:-?>|.*?(?:--!?>|\Z))"
    r"|<[/!?][^>]*+(?:>|\Z)",
    re.IGNORECASE | re.DOTALL,
)
"""A piece of HTML. What is not closed goes on to the end, so no part of the text is looked at twice."""

_ATTRIBUTE = re.compile(r"([^\s\"'>/=]+)(?:\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s>]+)))?")
_LONG_REFERENCE = re.compile(r"&#x?[0-9a-f]{9,};?", re.IGNORECASE)
"""A number of no character, which Python would take long to read."""


def plaintext(html: str) -> str:
    """The text of `html` without markup: a line per block, and each link followed by its address.

    Takes time in proportion to the length of `html`, whatever it holds, and raises nothing.

    >>> plaintext('<h1>Hello</h1><p>See <a href="https://example.org">the page</a> &amp; reply</p>')
    'Hello\\n\\nSee the page (https://example.org) & reply\\n'
    """
    reader = _Reader()
    reader.read(html)
    lines = "".join(reader.pieces).strip("\n").split("\n")
    text = "\n".join(line.rstrip(" \t") for line in lines)
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


class _Reader:
    """Collects the visible text in `pieces`; `blank` counts the line ends at its end."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.blank = PARAGRAPH
        self.preformatted = 0
        self.link = ""
        self.link_start = 0

    def read(self, html: str) -> None:
        at = 0
        while found := _TOKEN.match(html, at):
            at = found.end()
            if found["text"]:
                self.handle_data(_unescaped(found["text"]))
            elif found["start"]:
                tag = found["start"].lower()
                self.handle_starttag(tag, found["attributes"])
                if tag in _UNSHOWN:
                    end = re.compile(rf"</{tag}(?=[\s/>])", re.IGNORECASE).search(html, at)
                    at = end.start() if end else len(html)
            elif found["end"]:
                self.handle_endtag(found["end"].lower())

    def handle_starttag(self, tag: str, attributes: str) -> None:
        self.end_lines(self.blank + 1 if tag == "br" else _ends(tag))
        if tag == "li":
            self.pieces.append("- ")
            self.blank = PARAGRAPH
        elif tag == "pre":
            self.preformatted += 1
        elif tag in {"td", "th"}:
            self.handle_data(" ")
        elif tag == "img":
            self.handle_data(_attribute(attributes, "alt"))
        elif tag == "a":
            self.link, self.link_start = _attribute(attributes, "href"), len(self.pieces)

    def handle_endtag(self, tag: str) -> None:
        if tag == "a" and self.link:
            shown = "".join(self.pieces[self.link_start :]).strip()
            target = self.link.removeprefix("mailto:")
            if target != shown and not target.startswith("#"):
                self.handle_data(f" ({target})")
            self.link = ""
        elif tag == "pre" and self.preformatted:
            self.preformatted -= 1
        self.end_lines(_ends(tag))

    def handle_data(self, data: str) -> None:
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


def _attribute(attributes: str, name: str) -> str:
    """The value of the first attribute called `name`; empty without one."""
    for found in _ATTRIBUTE.finditer(attributes):
        if found[1].lower() == name:
            return _unescaped(found[2] or found[3] or found[4] or "")
    return ""


def _unescaped(text: str) -> str:
    return unescape(_LONG_REFERENCE.sub("\ufffd", text))


def _ends(tag: str) -> int:
    """How many line ends separate the content of `tag` from its surroundings."""
    return PARAGRAPH if tag in _PARAGRAPHS else int(tag in _LINES)
