"""The envelope of a transaction: its commands, and what the server answered to them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from packmule.jobs.email.letter import Letter
from packmule.jobs.email.outcome import Outcome, State

MOST_RECIPIENTS = 100
"""Recipients of one transaction: as many as every server takes (RFC 5321 4.5.3.1.8)."""

END = b".\r\n"
"""The end of a body."""

_LINE_END = re.compile(rb"\r\n|\r|\n")
_FIT = re.compile(r"[^\x00-\x20\x7f<>]+|\"[^\x00-\x1f\x7f]*\"@[^\x00-\x20\x7f<>]+")
"""What may stand between `<` and `>` in a command; addresses were checked when the mail was made."""


@dataclass(slots=True)
class Envelope:
    """What became of an envelope: recipients that were `accepted` or `refused`, and those `left` for another.

    `goes_on` tells whether the server waits for the body. Otherwise nothing more is to be sent.
    """

    accepted: list[str] = field(default_factory=list)
    refused: dict[str, Outcome] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    goes_on: bool = False


def commands(letter: Letter, extensions: Mapping[str, str]) -> list[bytes]:
    """The commands of the first transaction of `letter`: MAIL, and as many RCPT as it may have."""
    options = b""
    if "SIZE" in extensions:
        options += b" SIZE=%d" % len(letter.content)
    if letter.needs_utf8:
        options += b" SMTPUTF8" + (b" BODY=8BITMIME" if "8BITMIME" in extensions else b"")
    mail = b"MAIL FROM:<%s>%s\r\n" % (letter.sender.encode(), options)
    return [mail, *(b"RCPT TO:<%s>\r\n" % each.encode() for each in letter.recipients[:MOST_RECIPIENTS])]


def impossible(letter: Letter, extensions: Mapping[str, str], server: str) -> Outcome | None:
    """Why this server can't take the letter, whatever it would say."""
    if letter.needs_utf8 and "SMTPUTF8" not in extensions:
        return Outcome(State.REFUSED, f"{server} accepts only ASCII before the @ of an address (no SMTPUTF8)")
    addresses = [*letter.recipients, *([letter.sender] if letter.sender else ())]
    if not all(_FIT.fullmatch(each) and (letter.needs_utf8 or each.isascii()) for each in addresses):
        return Outcome(State.REFUSED, "an address of the envelope is not valid; nothing was sent")
    return None


def stuffed(content: bytes) -> bytes:
    """The content with its end, in which no line can be taken for that."""
    if not content.count(b"\n") == content.count(b"\r") == content.count(b"\r\n"):
        content = _LINE_END.sub(b"\r\n", content)
    if content.startswith(b"."):
        content = b"." + content
    if b"\n." in content:
        content = content.replace(b"\n.", b"\n..")
    return content + (END if content.endswith(b"\r\n") else b"\r\n" + END)
