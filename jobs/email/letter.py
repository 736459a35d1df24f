"""What is sent: a mail as one text for mail servers, and as a structure for providers that take fields."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from packmule.errors import UsageError

_CID = re.compile(r"[A-Za-z0-9._-]{1,100}(?:@[A-Za-z0-9.-]{1,100})?")


class InvalidMessage(UsageError, ValueError):
    """A mail can't be built from its arguments; nothing was sent."""


def check_cid(cid: str) -> None:
    """Refuse a name by which no HTML can show an image. Raises `InvalidMessage`."""
    if not _CID.fullmatch(cid):
        raise InvalidMessage(f"the image's name {cid[:80]!r} may have only letters, digits and . _ -")


class Mailbox(NamedTuple):
    """An address without or with the name that readers see. The domain of `spec` is ASCII."""

    name: str
    spec: str


@dataclass(frozen=True, slots=True)
class Content:
    """A mail's content, as plain text, HTML, or both."""

    text: str | None
    html: str | None


@dataclass(frozen=True, slots=True)
class Attachment:
    """An attached file: the name that the reader sees, and its bytes.

    With `cid` it is an image inside the HTML, which shows it by `<img src="cid:...">`.
    """

    name: str
    content: bytes
    cid: str | None = None

    def __post_init__(self) -> None:
        """Check the cid, which is part of a header. Raises `InvalidMessage`."""
        if self.cid is not None:
            check_cid(self.cid)


@dataclass(frozen=True, slots=True)
class Message:
    """The parts of a mail, for what sends fields instead of MIME.

    `headers` are those that the other fields don't tell, such as List-Unsubscribe, as text that is not yet
    encoded. `tags` and `metadata` are for the provider and the reader of statistics.
    """

    subject: str
    sender: Mailbox
    to: tuple[Mailbox, ...]
    cc: tuple[Mailbox, ...]
    bcc: tuple[Mailbox, ...]
    reply_to: tuple[Mailbox, ...]
    content: Content
    attachments: tuple[Attachment, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Letter:
    """A mail ready to send, and its envelope.

    `message_id` depends on the send's key only: a second copy has the ID of the first. `sender` is the return
    path. `content` has CRLF lines and is not dot-stuffed; it is ASCII, and so is the envelope, unless
    `needs_utf8` says that an address has other letters before its @. If it `is_dotless`, none of its lines
    begins with a dot, and all of them end with CRLF. If it was sent before and the answer was lost, it may be
    sent only as the same `request` (`HttpWay.request`).
    """

    message_id: str
    sender: str
    recipients: tuple[str, ...]
    content: bytes
    needs_utf8: bool
    message: Message | None = None
    is_dotless: bool = False
    request: str = ""
