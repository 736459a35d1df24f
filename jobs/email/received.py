"""Mails from outside, taken apart within bounds: whoever wrote them may be hostile."""

from __future__ import annotations

import re
from collections.abc import Iterator
from email.header import decode_header
from email.message import Message
from email.parser import BytesParser
from email.policy import compat32
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

_BOUNDARY = re.compile(rb"^--", re.MULTILINE)
_parse = BytesParser(policy=compat32)


class UnreadableMail(UsageError, ValueError):
    """A mail is too large, or has too many parts, to be taken apart."""


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
        raise UnreadableMail(f"the mail has {len(content):,} bytes; up to {MOST_BYTES:,} are taken apart")
    for count, _ in enumerate(_BOUNDARY.finditer(content), 1):
        if count > MOST_BOUNDARIES:
            raise UnreadableMail(f"the mail has over {MOST_BOUNDARIES:,} lines that may begin a part")
    try:
        return _parse.parsebytes(content)
    except (RecursionError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UnreadableMail(f"the mail can't be taken apart: {type(error).__name__}") from None


def leaves(message: Message) -> Iterator[Message]:
    """Yield the parts that hold no others, some hundreds at most; of an attached mail, its own parts."""
    waiting = [(message, 0)]
    seen = 0
    while waiting:
        part, depth = waiting.pop()
        seen += 1
        if seen > MOST_PARTS:
            return
        inside = part.get_payload()
        if isinstance(inside, list):
            if depth < MOST_DEPTH:
                waiting += [(each, depth + 1) for each in reversed(inside) if isinstance(each, Message)]
        else:
            yield part


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
    return [(name[:100], header_text(value)) for name, value in message.items()[:MOST_HEADERS]]


def header_text(value: object) -> str:
    """A header's value as text, on one line."""
    raw = str(value)[:LONGEST_HEADER]
    try:
        told = [
            text.decode(charset or "latin-1", "replace") if isinstance(text, bytes) else text
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
