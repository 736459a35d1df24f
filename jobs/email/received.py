"""Mails from outside, taken apart within bounds: whoever wrote them may be hostile."""

from __future__ import annotations

import re
from collections.abc import Iterator
from email.header import decode_header
from email.message import Message
from email.parser import BytesParser
from email.policy import compat32
from itertools import islice
from typing import NamedTuple

from packmule.errors import UsageError
from packmule.units import MIB

MOST_BYTES = 8 * MIB
"""Bytes of a mail that is taken apart."""

MOST_PARTS = 200
MOST_BOUNDARIES = 2_000
"""Lines that may begin a part; a mail with more isn't taken apart at all."""

MOST_DEPTH = 20
MOST_HEADERS = 200
LONGEST_HEADER = 2_000
MOST_TEXT = 500_000
"""Characters that are kept of a mail's text, and of its HTML."""

MOST_STEPS = 20_000_000
"""Lines times boundaries: each line of a mail is compared with each boundary around it."""

MOST_BLOCKS = 20_000
"""Empty lines of a mail with a delivery status, each of whose blocks becomes a message."""

_BOUNDARY = re.compile(rb"^--", re.MULTILINE)
_LONG_TYPE = re.compile(
    rb"(?:^|[\r\n])content-(?:type|disposition):(?:[^\r\n]|[\r\n]+[ \t]){4000}", re.IGNORECASE
)
_NAMES_BOUNDARY = re.compile(rb"boundary", re.IGNORECASE)
_STATUS = re.compile(rb"delivery-status", re.IGNORECASE)
_EMPTY = re.compile(rb"\n\r?\n|\r\r")
_parse = BytesParser(policy=compat32)


class UnreadableMail(UsageError, ValueError):
    """A mail is too large, has too many parts, or would take too long, to be taken apart."""


class Part(NamedTuple):
    """A part that holds no other parts: its media type, its file's name, and its Content-ID."""

    type: str
    name: str
    cid: str
    content: bytes


class Received(NamedTuple):
    """A mail: its headers as text, and its parts. Of multipart/alternative, all are there."""

    headers: list[tuple[str, str]]
    parts: list[Part]
    text: str | None
    html: str | None

    def header(self, name: str) -> str:
        """The first header of that name, "" without one."""
        return next((value for each, value in self.headers if each.lower() == name.lower()), "")


def read(content: bytes) -> Received:
    """Take a mail apart. Raises `UnreadableMail`.

    >>> read(b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\\r\\n\\r\\nHello").header("subject")
    'Grüße'
    """
    message = parsed(content)
    parts: list[Part] = []
    text: str | None = None
    html: str | None = None
    for leaf in leaves(message):
        kind = leaf.get_content_type()
        payload = content_of(leaf)
        name = _name(leaf)
        if kind == "text/plain" and text is None and not name:
            text = decoded(payload, leaf)
        elif kind == "text/html" and html is None and not name:
            html = decoded(payload, leaf)
        else:
            cid = str(leaf.get("Content-ID", ""))[:LONGEST_HEADER].strip().strip("<>")
            parts.append(Part(kind[:100], name, cid, payload))
    return Received(headers_of(message), parts, text, html)


def parsed(content: bytes) -> Message:
    """The standard library's message of a mail that has bounded parts. Raises `UnreadableMail`."""
    if len(content) > MOST_BYTES:
        raise UnreadableMail(f"the mail has {len(content):,} bytes; only {MOST_BYTES:,} are parsed")
    for count, _ in enumerate(_BOUNDARY.finditer(content), 1):
        if count > MOST_BOUNDARIES:
            raise UnreadableMail(f"the mail has over {MOST_BOUNDARIES:,} lines that may begin a part")
    if why := _takes_long(content):
        raise UnreadableMail(f"the mail would take too long to parse: {why}")
    try:
        return _parse.parsebytes(content)
    except (RecursionError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UnreadableMail(f"the mail can't be parsed: {type(error).__name__}") from None


def _takes_long(content: bytes) -> str:
    """Why the standard library would take minutes for a mail, or nothing."""
    if _LONG_TYPE.search(content):  # it counts the quotes again for each semicolon
        return "it has a Content-Type or Content-Disposition of over 4,000 characters"
    lines = content.count(b"\n") + content.count(b"\r")
    if lines * len(_NAMES_BOUNDARY.findall(content)) > MOST_STEPS:
        return "it has too many boundaries and lines"
    if _STATUS.search(content) and len(_EMPTY.findall(content)) > MOST_BLOCKS:
        return f"its delivery status may have over {MOST_BLOCKS:,} blocks"
    return ""


def leaves(message: Message) -> Iterator[Message]:
    """Yield the parts that hold no others, some hundreds at most; of an attached mail, its own parts."""
    waiting = [(message, 0)]
    seen = 0
    while waiting:
        part, depth = waiting.pop()
        seen += 1
        if seen > MOST_PARTS:
            return
        if not part.is_multipart():
            yield part
        elif depth < MOST_DEPTH:
            waiting += [(each, depth + 1) for each in reversed(inside(part))]


def inside(part: Message) -> list[Message]:
    """The parts of a part, if it has some; of one that has none, nothing is decoded."""
    payload = part.get_payload() if part.is_multipart() else ()
    return [each for each in payload if isinstance(each, Message)]


def content_of(part: Message) -> bytes:
    """The bytes of a part, decoded as far as they can be."""
    try:
        payload = part.get_payload(decode=True)
    except (ValueError, LookupError, TypeError, AssertionError):
        payload = None
    return payload if isinstance(payload, bytes) else b""


def decoded(payload: bytes, part: Message) -> str:
    """The text of a part, whatever its charset claims to be; the first of it, if it is long."""
    payload = payload[: 4 * MOST_TEXT]
    try:
        charset = part.get_content_charset() or "utf-8"
        text = payload.decode(charset if len(charset) < 50 else "utf-8", "replace")  # noqa: PLR2004
    except (LookupError, ValueError, TypeError):
        text = payload.decode("utf-8", "replace")
    return text[:MOST_TEXT].replace("\r\n", "\n").replace("\r", "\n")


def headers_of(message: Message) -> list[tuple[str, str]]:
    """The headers as readers see them; the first of them, and of each the first characters."""
    return [(name[:100], header_text(value)) for name, value in islice(message.raw_items(), MOST_HEADERS)]


def header_text(value: object) -> str:
    """A header's value as text, on one line; bytes that are not ASCII are UTF-8 (RFC 6532)."""
    raw = str(value)[:LONGEST_HEADER].encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    unencoded = "latin-1" if raw.isascii() else "raw-unicode-escape"  # of `decode_header`
    try:
        told = [
            text.decode(charset or unencoded, "replace") if isinstance(text, bytes) else text
            for text, charset in decode_header(raw)
        ]
    except (ValueError, LookupError, TypeError, IndexError):
        told = [raw]
    text = " ".join("".join(told).split())
    return text.encode("utf-8", "replace").decode()


def _name(part: Message) -> str:
    try:
        name = part.get_filename("")
    except (ValueError, LookupError, TypeError):
        name = ""
    return header_text(name)[:200] if name else ""
