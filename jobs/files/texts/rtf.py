"""RTF: its text without markup, in time that is in proportion to its length whatever it holds."""

from __future__ import annotations

import codecs
import re
from contextlib import suppress
from dataclasses import dataclass, replace

TOKEN = re.compile(
    r"(?P<text>[^\\{}\r\n]+)|(?P<brace>[{}])|\\'(?P<hex>[0-9a-fA-F]{2})"
    r"|\\(?P<word>[a-zA-Z]{1,32})(?P<number>-?\d{1,10})? ?|\\(?P<sign>[^a-zA-Z])|[\r\n]+|\\",
    re.DOTALL,
)
SIGNS = {
    "par": "\n", "line": "\n", "sect": "\n", "page": "\n\f\n", "row": "\n", "cell": "\t", "nestcell": "\t",
    "tab": "\t", "emdash": "—", "endash": "–", "emspace": "\u2003", "enspace": "\u2002", "bullet": "•",
    "lquote": "‘", "rquote": "’", "ldblquote": "“", "rdblquote": "”",
    "~": "\xa0", "_": "‑", "\\": "\\", "{": "{", "}": "}", "\n": "\n", "\r": "\n",
}  # fmt: skip
"""Control words and signs that stand for characters."""
UNSHOWN = frozenset(
    ["colortbl", "datafield", "fldinst", "fonttbl", "footer", "footerf", "footerl", "footerr", "header",
     "headerf", "headerl", "headerr", "info", "objdata", "pict", "revtbl", "stylesheet", "xe"]
)  # fmt: skip
"""Groups whose text isn't the document's; so are those that begin with `\\*`."""
CHARSETS = {
    77: "mac_roman", 128: "cp932", 129: "cp949", 130: "johab", 134: "gbk", 136: "big5", 161: "cp1253",
    162: "cp1254", 163: "cp1258", 177: "cp1255", 178: "cp1256", 186: "cp1257", 204: "cp1251", 222: "cp874",
    238: "cp1250", 255: "cp437",
}  # fmt: skip
"""The encodings of fonts by the numbers that Windows gives them."""
LEAST, LAST = -0x8000, 0x10FFFF
"""The numbers of characters; those below zero are of 16 bits with a sign."""


@dataclass(frozen=True, slots=True)
class Group:
    """What holds up to the end of a group; `skip` characters behind each `\\u` are for older readers."""

    is_shown: bool = True
    is_fonts: bool = False
    font: int = 0
    skip: int = 1


def rtf_text(content: str) -> tuple[str, bool]:
    """The text of RTF whose bytes were read as Latin-1, and whether all of its groups are closed.

    >>> rtf_text(r"{\\rtf1 Gr\\'fc\\u223?e\\par}")
    ('Grüße\\n', True)
    """
    reader = _Reader()
    at = 0
    while not reader.has_ended and (found := TOKEN.match(content, at)):
        at = found.end()
        if found["text"]:
            reader.text(found["text"])
        elif found["hex"]:
            reader.byte(int(found["hex"], 16))
        elif found["brace"]:
            reader.brace(found["brace"])
        elif found["word"] == "bin":
            at += max(0, int(found["number"] or 0))
        else:
            reader.word(found["word"] or found["sign"] or "", found["number"])
    reader.flush()
    # A character beyond the first 65,536 is two numbers.
    text = "".join(reader.pieces).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text, reader.has_ended


class _Reader:
    """Collects the text in `pieces`."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.has_ended = False
        self._raw = bytearray()  # bytes of an encoding, of which several may make a character
        self._encoding = "cp1252"
        self._encodings: dict[int, str] = {}
        self._group = Group()
        self._outer: list[Group] = []
        self._skip = 0

    def text(self, text: str) -> None:
        shown, self._skip = text[self._skip :], max(0, self._skip - len(text))
        if self._group.is_shown:
            self._raw += shown.encode("latin-1", "replace")

    def byte(self, value: int) -> None:
        if self._skip:
            self._skip -= 1
        elif self._group.is_shown:
            self._raw.append(value)

    def brace(self, brace: str) -> None:
        self.flush()
        self._skip = 0
        if brace == "{":
            self._outer.append(self._group)
        elif self._outer:
            self._group = self._outer.pop()
            self.has_ended = not self._outer

    def word(self, name: str, number: str | None) -> None:
        self.flush()
        value = int(number or 0)
        if name == "u" and number:
            self._skip = self._group.skip
            if self._group.is_shown and LEAST <= value <= LAST:
                self.pieces.append(chr(value % 0x10000 if value < 0 else value))
        elif name == "*" or name in UNSHOWN:
            self._group = replace(self._group, is_shown=False, is_fonts=name == "fonttbl")
        elif name in SIGNS:
            if self._group.is_shown:
                self.pieces.append(SIGNS[name])
        else:
            self._setting(name, value)

    def flush(self) -> None:
        """Decode what came as bytes."""
        if self._raw:
            encoding = self._encodings.get(self._group.font, self._encoding)
            self.pieces.append(self._raw.decode(encoding, "replace"))
            self._raw.clear()

    def _setting(self, name: str, value: int) -> None:
        """What changes how the rest is read."""
        if name == "f":
            self._group = replace(self._group, font=value)
        elif name == "uc":
            self._group = replace(self._group, skip=min(max(0, value), 10))
        elif name == "fcharset" and self._group.is_fonts and value in CHARSETS:
            self._encodings[self._group.font] = CHARSETS[value]
        elif name == "ansicpg":
            with suppress(LookupError):
                self._encoding = codecs.lookup(f"cp{value}").name
