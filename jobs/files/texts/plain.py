"""HTML, RTF and plain text, of whatever encoding."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from packmule.jobs.files.text import as_utf8, marked
from packmule.jobs.files.texts.documents import Document
from packmule.jobs.files.texts.rtf import rtf_text
from packmule.units import MIB

MOST_HTML = 32 * MIB
MOST_RTF = 16 * MIB
CHUNK = MIB
HEAD = 4096
CHARSET = re.compile(
    rb"""<(?:meta\b[^>]*?\bcharset|\?xml\b[^>]*?\bencoding)\s*=\s*["']?\s*([\w.:-]{1,40})""", re.I
)
OF_BROWSERS = re.compile(
    r"cp(125\d|866|874|932|949)|iso8859-\d+|koi8-[ru]|mac-roman|euc_jp|iso2022_jp|gb18030"
)
BROWSERS = {
    "ascii": "cp1252", "iso8859-1": "cp1252", "iso8859-9": "cp1254", "shift_jis": "cp932", "euc_kr": "cp949",
    "gb2312": "gb18030", "gbk": "gb18030", "big5": "big5hkscs", "big5hkscs": "big5hkscs",
}  # fmt: skip
"""What browsers read instead of the encoding that pages name."""


def text_pages(document: Document) -> Iterator[str]:
    """Yield a text as it is, in pieces that are no pages."""
    with _utf8(document).open(encoding="utf-8", errors="replace") as content:
        while piece := content.read(CHUNK):
            yield piece


def html_pages(document: Document) -> Iterator[str]:
    """Yield the text without markup, each link followed by its address."""
    from packmule.jobs.email.message.plaintext import plaintext  # noqa: PLC0415  it loads all of e-mail

    document.check_size(MOST_HTML)
    yield plaintext(_html(document))


def rtf_pages(document: Document) -> Iterator[str]:
    """Yield the text without markup."""
    document.check_size(MOST_RTF)
    content = document.file.read_bytes().decode("latin-1")  # with line ends as they are: \\bin counts them
    text, is_whole = rtf_text(content[content.find("{") :])
    if not is_whole:
        document.warnings.append("it may be cut: not all of its groups are closed")
    yield text


def _html(document: Document) -> str:
    """HTML in UTF-8, or in the encoding that it declares, if that fits."""
    with suppress(UnicodeDecodeError):
        if document.encoding is None and marked(document.file) is None:
            content = document.file.read_bytes()
            with suppress(UnicodeDecodeError):
                return content.decode()
            if declared := _declared(content[:HEAD]):
                return content.decode(declared)
    return _utf8(document).read_text("utf-8", "replace")


def _declared(head: bytes) -> str | None:
    """The encoding that HTML names, as browsers take it; of Python's others some take very long."""
    if found := CHARSET.search(head):
        with suppress(LookupError):
            name = codecs.lookup(found[1].decode()).name
            return BROWSERS.get(name) or (name if OF_BROWSERS.fullmatch(name) else None)
    return None


def _utf8(document: Document) -> Path:
    """The file, or a copy in UTF-8."""
    copy = document.folder / "utf-8"
    return as_utf8(document.source, document.file, copy, lambda percent: None, document.encoding).file
