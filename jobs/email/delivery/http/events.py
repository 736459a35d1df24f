"""What providers tell of mails afterwards, as one kind of event: bounced, complained of, or delivered."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from packmule.errors import UsageError
from packmule.jobs.email.delivery.http.fields import MARK
from packmule.jobs.email.delivery.http.signatures import INVITATION, verify
from packmule.plain_text import one_line

MOST_BYTES = 4 * 1024 * 1024
MOST_EVENTS = 10_000
MAX_REASON = 500
MAX_ADDRESS = 320
MAX_MARK = 200


class InvalidEvents(UsageError, ValueError):
    """What came as a provider's events is none of those."""


class Kind(StrEnum):
    """What became of a mail."""

    HARD_BOUNCE = "hard"
    SOFT_BOUNCE = "soft"
    COMPLAINT = "complaint"
    UNSUBSCRIBED = "unsubscribed"
    DELIVERED = "delivered"


class Event(NamedTuple):
    """What became of the mail to `recipient`.

    `mark` is the mail's Message-ID before the @, if the provider kept it; Resend writes its dots as `_`.
    """

    kind: Kind
    recipient: str
    reason: str
    mark: str


class Told(NamedTuple):
    """What a request that was verified tells.

    Mailgun signs its `token` alone, so other events under the same one are forged. `invites` has the topic
    and the token of a subscription that SNS asks to confirm.
    """

    events: list[Event]
    token: str = ""
    invites: tuple[str, str] | None = None


def events(provider: str, body: bytes, headers: Mapping[str, str], key: str) -> list[Event]:
    """The events in a request that `provider` sent, once its signature is verified with `key`.

    `headers` may have names in any case. For `ses` the key is the ARN of the topic, for `postmark` what its
    webhook sends as password, for the others what the provider shows as signing or verification key. Events
    of other kinds, and those that are malformed, are left out.

    >>> events("postmark", b'{"RecordType": "Delivery", "Recipient": "ada@example.org"}',
    ...        {"Authorization": "Basic aG9vazpzM2NyZXQ="}, "s3cret")[0].kind
    <Kind.DELIVERED: 'delivered'>

    Raises `InvalidEvents`, `BadSignature`, and `NoCryptography` if that package is not there.
    """
    return told(provider, body, headers, key).events


def told(provider: str, body: bytes, headers: Mapping[str, str], key: str) -> Told:
    """What a request tells, as `events` says, and what keeps it from being sent again."""
    if provider not in PROVIDERS:
        raise InvalidEvents(f"there is no provider {provider!r:.40}: use one of {', '.join(PROVIDERS)}")
    if len(body) > MOST_BYTES:
        raise InvalidEvents(f"events of {provider} have at most {MOST_BYTES:,} bytes")
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidEvents(f"what {provider} sent is not valid JSON") from None
    verify(provider, body, said, {name.lower(): value for name, value in headers.items()}, key)
    if provider == "ses" and said["Type"] == INVITATION:
        return Told([], invites=(said["TopicArn"], str(said.get("Token"))))
    found = []
    for kind, recipient, reason, mark in _READERS[provider](said):
        if isinstance(recipient, str) and "@" in recipient and len(recipient) <= MAX_ADDRESS:
            found.append(Event(kind, recipient.strip(), _reason(reason), _mark(mark)))
        if len(found) == MOST_EVENTS:
            break
    return Told(found, said["signature"]["token"] if provider == "mailgun" else "")


Found = Iterator[tuple[Kind, Any, Any, Any]]


_POSTMARK = {
    "HardBounce": Kind.HARD_BOUNCE,
    "BadEmailAddress": Kind.HARD_BOUNCE,
    "ManuallyDeactivated": Kind.HARD_BOUNCE,
    "SoftBounce": Kind.SOFT_BOUNCE,
    "DnsError": Kind.SOFT_BOUNCE,
    "Blocked": Kind.SOFT_BOUNCE,
    "SpamComplaint": Kind.COMPLAINT,
}
"""Postmark also calls delays and replies of absent people bounces: these say nothing of an address."""


def _postmark(said: Any) -> Found:
    said = _dict(said)
    mark = _dict(said.get("Metadata")).get(MARK)
    match said.get("RecordType"):
        case "Delivery":
            yield Kind.DELIVERED, said.get("Recipient"), said.get("Details"), mark
        case "Bounce" if kind := _POSTMARK.get(str(said.get("Type"))):
            yield kind, said.get("Email"), said.get("Details") or said.get("Description"), mark
        case "SpamComplaint":
            yield Kind.COMPLAINT, said.get("Email"), said.get("Details"), mark
        case "SubscriptionChange" if said.get("SuppressSending") is True:
            yield Kind.UNSUBSCRIBED, said.get("Recipient"), said.get("SuppressionReason"), mark


def _mailgun(said: Any) -> Found:
    data = _dict(_dict(said).get("event-data"))
    status = _dict(data.get("delivery-status"))
    reason = status.get("message") or status.get("description") or data.get("reason")
    mark = _dict(data.get("user-variables")).get(MARK)
    match data.get("event"):
        case "delivered":
            yield Kind.DELIVERED, data.get("recipient"), reason, mark
        case "failed" if data.get("severity") == "permanent":  # it tries again after the others
            is_old = data.get("reason") == "old"  # Mailgun has tried for hours
            yield Kind.SOFT_BOUNCE if is_old else Kind.HARD_BOUNCE, data.get("recipient"), reason, mark
        case "complained":
            yield Kind.COMPLAINT, data.get("recipient"), reason, mark
        case "unsubscribed":
            yield Kind.UNSUBSCRIBED, data.get("recipient"), reason, mark


def _sendgrid(said: Any) -> Found:
    for data in map(_dict, said if isinstance(said, list) else []):
        reason, mark = data.get("reason") or data.get("response"), data.get(MARK)
        match data.get("event"):
            case "delivered":
                yield Kind.DELIVERED, data.get("email"), reason, mark
            case "bounce":
                # A block is a refusal that need not last.
                kind = Kind.SOFT_BOUNCE if data.get("type") == "blocked" else Kind.HARD_BOUNCE
                yield kind, data.get("email"), reason, mark
            case "spamreport":
                yield Kind.COMPLAINT, data.get("email"), reason, mark
            case "unsubscribe" | "group_unsubscribe":
                yield Kind.UNSUBSCRIBED, data.get("email"), reason, mark


def _resend(said: Any) -> Found:
    said = _dict(said)
    data = _dict(said.get("data"))
    tags = data.get("tags")
    if isinstance(tags, list):
        tags = {
            tag.get("name"): tag.get("value") for tag in map(_dict, tags) if isinstance(tag.get("name"), str)
        }
    bounce, mark = _dict(data.get("bounce")), _dict(tags).get(MARK)
    kinds = {"email.delivered": Kind.DELIVERED, "email.complained": Kind.COMPLAINT}
    kind = kinds.get(said["type"]) if isinstance(said.get("type"), str) else None
    if said.get("type") == "email.bounced":
        kind = Kind.HARD_BOUNCE if bounce.get("type") == "Permanent" else Kind.SOFT_BOUNCE
    for recipient in _list(data.get("to")) if kind is not None else ():
        yield kind, recipient, bounce.get("message"), mark  # type: ignore[misc]  # it isn't None here


def _ses(said: Any) -> Found:
    try:
        data = _dict(json.loads(_dict(said).get("Message", "")))
    except (TypeError, ValueError, RecursionError):
        return
    values = _list(_dict(_dict(data.get("mail")).get("tags")).get(MARK))
    mark = values[0] if values else None
    bounce, complaint = _dict(data.get("bounce")), _dict(data.get("complaint"))
    match data.get("eventType") or data.get("notificationType"):
        case "Bounce":
            kind = Kind.HARD_BOUNCE if bounce.get("bounceType") == "Permanent" else Kind.SOFT_BOUNCE
            for each in map(_dict, _list(bounce.get("bouncedRecipients"))):
                yield kind, each.get("emailAddress"), each.get("diagnosticCode"), mark
        case "Complaint":
            for each in map(_dict, _list(complaint.get("complainedRecipients"))):
                yield Kind.COMPLAINT, each.get("emailAddress"), complaint.get("complaintFeedbackType"), mark
        case "Delivery":
            delivery = _dict(data.get("delivery"))
            for recipient in _list(delivery.get("recipients")):
                yield Kind.DELIVERED, recipient, delivery.get("smtpResponse"), mark


_READERS = {
    "ses": _ses,
    "postmark": _postmark,
    "mailgun": _mailgun,
    "sendgrid": _sendgrid,
    "resend": _resend,
}

PROVIDERS = tuple(_READERS)


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _reason(reason: Any) -> str:
    text = reason if isinstance(reason, str) else ""
    return one_line(text[: 4 * MAX_REASON], MAX_REASON)


def _mark(mark: Any) -> str:
    return mark if isinstance(mark, str) and mark.isprintable() and len(mark) <= MAX_MARK else ""
