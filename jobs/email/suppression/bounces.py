"""Bounces and complaints that come as mails (RFC 3464 and 5965), and what they do to their recipients.

Anybody can send us a report. One counts only if it names the Message-ID of a mail that the ledger sent, and
its recipient; all others change nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from email.message import Message
from enum import StrEnum
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from packmule.jobs.email.ledger import reader
from packmule.jobs.email.message.addresses import InvalidAddress, parse
from packmule.jobs.email.message.verp import recipient_of
from packmule.jobs.email.received import MOST_PARTS, content_of, header_text, parsed
from packmule.jobs.email.suppression.addresses import suppressed_as
from packmule.jobs.email.suppression.store import SOFT_SECONDS, Suppressions

if TYPE_CHECKING:
    from redis import Redis

MOST_RECIPIENTS = 100
"""Recipients that one report may name."""

TAKEN = "pm:mail-bounced:"
"""Keys of soft bounces that were counted: a report that is read again counts once."""

_HARD = re.compile(r"5\.1\.(?![78]\b)\d{1,3}|5\.2\.1\b")
"""The address doesn't exist or is disabled; 5.1.7 and 5.1.8 are about the sender."""

_STATUS = re.compile(r"\s*([245]\.\d{1,3}\.\d{1,3})")
_PATHS = ("X-Original-To", "Delivered-To", "To")
"""The headers that may have the return path to which a report was sent."""


class Kind(StrEnum):
    """What a report says of a mail."""

    HARD = "hard"
    SOFT = "soft"
    COMPLAINT = "complaint"


class Report(NamedTuple):
    """What is said of the mail with `message_id`, to one of `recipients`: as it may have been written."""

    kind: Kind
    message_id: str
    recipients: tuple[str, ...]
    reason: str


class Taken(NamedTuple):
    """What a mail did: the kinds of its reports, how many are of no mail of ours, and who is suppressed."""

    known: list[Kind]
    unknown: int
    suppressed: list[str]


def take(client: Redis, content: bytes, return_path: str | None = None) -> Taken:
    """Take a mail from outside; one that is no report of a mail of ours changes nothing.

    `return_path` is the pattern of our mails' return paths, such as `bounces+{to}@example.org`. Raises
    `UnreadableMail`.

    >>> take(client, Path("bounce.eml").read_bytes()).suppressed  # doctest: +SKIP
    ['ada@example.org']
    """
    store, digest = Suppressions(client), blake2b(content, digest_size=16).hexdigest()
    known, unknown, suppressed = list[Kind](), 0, list[str]()
    for number, report in enumerate(reports(content, return_path)):
        to = next((each for each in report.recipients if _is_ours(client, report, each)), None)
        if to is None:
            unknown += 1
            continue
        known.append(report.kind)
        if report.kind is Kind.COMPLAINT:
            is_new = bool(store.add_all([(suppressed_as(to), report.reason)], "complaint"))
        elif report.kind is Kind.HARD:
            is_new = store.bounced(to, report.reason, is_hard=True)
        elif client.set(f"{TAKEN}{digest}:{number}", 1, nx=True, ex=SOFT_SECONDS):
            is_new = store.bounced(to, report.reason, is_hard=False)
        else:
            is_new = False
        if is_new:
            suppressed.append(to)
    return Taken(known, unknown, suppressed)


def reports(content: bytes, return_path: str | None = None) -> list[Report]:
    """What a mail says of mails that were sent; nothing if it is no report. Raises `UnreadableMail`."""
    message = parsed(content)
    if message.get_content_type() != "multipart/report":
        return []
    told, feedback, originals = list[Message](), list[Message](), list[Message]()
    for part in _inside(message):
        kind, payload = part.get_content_type(), part.get_payload()
        inside = [each for each in payload if isinstance(each, Message)] if isinstance(payload, list) else []
        if kind == "message/delivery-status":
            told += inside[: MOST_RECIPIENTS + 1]
        elif kind == "message/feedback-report":
            feedback += inside[:1] or [parsed(content_of(part))]
        elif kind in ("message/rfc822", "message/global"):
            originals += inside[:1]
        elif kind in ("text/rfc822-headers", "message/global-headers"):
            originals += inside[:1] or [parsed(content_of(part))]
    id = next((text for each in originals if (text := _field(each, "Message-ID"))), "")
    if not id:
        return []
    paths = [_address(_field(message, name)) for name in _PATHS] if return_path else []
    verp = [to for path in paths if (to := recipient_of(return_path or "", path))]
    found = [report for each in told if (report := _bounce(each, id, verp)) is not None]
    for each in feedback[:1]:
        if _field(each, "Feedback-Type").lower() in ("abuse", "fraud", "virus"):
            named = [_address(_field(each, "Original-Rcpt-To")), _address(_field(originals[0], "To"))]
            reason = f"complaint: {_field(each, 'User-Agent') or 'no details'}"
            found.append(Report(Kind.COMPLAINT, id, tuple(filter(None, [*verp, *named])), reason))
    return found[:MOST_RECIPIENTS]


def _bounce(said: Message, id: str, verp: list[str]) -> Report | None:
    """What the fields of one recipient say; None if they name none, or the mail isn't given up."""
    named = [_address(_field(said, name)) for name in ("Original-Recipient", "Final-Recipient")]
    if not any(named) or _field(said, "Action").lower() != "failed":
        return None
    status = _STATUS.match(_field(said, "Status"))
    code = status[1] if status else "5.0.0"
    reason = f"{code} {_field(said, 'Diagnostic-Code').partition(';')[2].strip()}".strip()
    return Report(
        Kind.HARD if _HARD.match(code) else Kind.SOFT, id, tuple(filter(None, [*verp, *named])), reason
    )


def _is_ours(client: Redis, report: Report, recipient: str) -> bool:
    return reader.of_message(client, report.message_id, recipient) is not None


def _inside(message: Message) -> Iterator[Message]:
    """Yield the parts of a report, and not what is inside of these."""
    payload = message.get_payload()
    for part in payload[:MOST_PARTS] if isinstance(payload, list) else ():
        if isinstance(part, Message):
            yield part


def _field(message: Message, name: str) -> str:
    value = message.get(name)
    return "" if value is None else header_text(value).strip()


def _address(text: str) -> str:
    """The address in `rfc822; ada@example.org` or `Ada <ada@example.org>`, "" without one."""
    try:
        return parse(text.rpartition(";")[2].strip().removeprefix("<").removesuffix(">")).spec if text else ""
    except InvalidAddress:
        pass
    try:
        return parse(text).spec
    except InvalidAddress:
        return ""
