"""Bounces and complaints that come as mails (RFC 3464 and 5965), and what they do to their recipients.

Anybody can send us a report. One counts only if it names the Message-ID of a mail that the ledger sent, and
its recipient; all others change nothing.
"""

from __future__ import annotations

import re
from email.message import Message
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from packmule.jobs.email.ledger import KEEP, Entry, afterwards, reader
from packmule.jobs.email.message.addresses import InvalidAddress, parse
from packmule.jobs.email.message.verp import recipient_of
from packmule.jobs.email.received import MOST_PARTS, content_of, header_text, inside, parsed
from packmule.jobs.email.suppression.store import Reported, Suppressions

if TYPE_CHECKING:
    from redis import Redis

MOST_RECIPIENTS = 100
"""Recipients that one report may name."""

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

    @property
    def words(self) -> str:
        """What the ledger notes of it; the reason of a complaint says itself that it is one."""
        return self.reason if self.kind is Kind.COMPLAINT else f"bounced: {self.reason}"


class Taken(NamedTuple):
    """What a mail did: the kinds of its reports, how many are of no mail of ours, and who is suppressed."""

    known: list[Kind]
    unknown: int
    suppressed: list[str]


def take(client: Redis, content: bytes, return_path: str | None = None, keep: float = KEEP) -> Taken:
    """Take a mail from outside; one that is no report of a mail of ours changes nothing.

    `return_path` is the pattern of our mails' return paths, such as `bounces+{to}@example.org`. However often
    a mail is reported, by whatever reports of a kind, it counts once. Raises `UnreadableMail`.

    >>> take(client, Path("bounce.eml").read_bytes()).suppressed  # doctest: +SKIP
    ['ada@example.org']
    """
    found = reports(content, return_path)
    known = [(report, *mail) for report in found if (mail := _mail(client, report)) is not None]
    suppressed = Suppressions(client).reported(
        [
            Reported(
                to,
                report.reason,
                "complaint" if report.kind is Kind.COMPLAINT else "bounce",
                f"{entry.id}:{report.kind}",
                report.kind is Kind.SOFT,
            )
            for report, entry, to in known
        ]
    )
    afterwards.reported(client, [(entry, report.words) for report, entry, _ in known], "a report", keep)
    return Taken([report.kind for report, _, _ in known], len(found) - len(known), suppressed)


def reports(content: bytes, return_path: str | None = None) -> list[Report]:
    """What a mail says of mails that were sent; nothing if it is no report. Raises `UnreadableMail`."""
    message = parsed(content)
    if message.get_content_type() != "multipart/report":
        return []
    told, feedback, originals = list[Message](), list[Message](), list[Message]()
    for part in inside(message)[:MOST_PARTS]:
        kind, parts = part.get_content_type(), inside(part)
        if kind == "message/delivery-status":
            told += parts[: MOST_RECIPIENTS + 1]
        elif kind == "message/feedback-report":
            feedback += parts[:1] or [parsed(content_of(part))]
        elif kind in ("message/rfc822", "message/global"):
            originals += parts[:1]
        elif kind in ("text/rfc822-headers", "message/global-headers"):
            originals += parts[:1] or [parsed(content_of(part))]
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


def _mail(client: Redis, report: Report) -> tuple[Entry, str] | None:
    """The mail of which a report says something, and its recipient; None if the ledger sent none such."""
    entries = reader.of_messages(client, [(report.message_id, to) for to in report.recipients])
    found = zip(entries, report.recipients, strict=True)
    return next(((entry, to) for entry, to in found if entry is not None), None)


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
