"""A letter as the fields of each provider's API."""

from __future__ import annotations

import json
import re
import secrets
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from packmule.errors import Error
from packmule.jobs.email.letter import Attachment, Letter, Mailbox, Message
from packmule.jobs.email.message.mime import media_type

MARK = "packmule"
"""The name under which a provider keeps the mail's id for its events."""

_MARK_VALUE = re.compile(r"[A-Za-z0-9_.-]{1,200}")


class Body(NamedTuple):
    """The body of a request."""

    content_type: str
    data: bytes


class Lacking(Error):
    """A letter has only its text, and a provider's API needs its parts."""


def mark_of(letter: Letter) -> str:
    """What tells the mail in a provider's events: its Message-ID before the @, if that fits there."""
    local = letter.message_id.strip("<>").partition("@")[0]
    return local if _MARK_VALUE.fullmatch(local) else ""


def ses(letter: Letter, options: Mapping[str, str]) -> Body:
    """Amazon's SES, version 2: the mail as it is, and its envelope."""
    mark = mark_of(letter)
    return _json(
        {
            "FromEmailAddress": letter.sender,
            "Destination": {"ToAddresses": list(letter.recipients)},
            "Content": {"Raw": {"Data": _base64(letter.content)}},
            "ConfigurationSetName": options.get("set"),
            "EmailTags": [{"Name": MARK, "Value": mark}] if mark else None,
        }
    )


def mailgun(letter: Letter, options: Mapping[str, str]) -> Body:
    """Mailgun: the mail as it is, as a file of a form."""
    boundary = secrets.token_hex(16)
    fields = [("to", to) for to in letter.recipients]
    if mark := mark_of(letter):
        fields.append((f"v:{MARK}", mark))
    if letter.message is not None:
        fields += [("o:tag", tag) for tag in letter.message.tags]
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields
    ]
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="message"; filename="mail.eml"\r\n\r\n'
    data = b"".join([*parts, head.encode(), letter.content, f"\r\n--{boundary}--\r\n".encode()])
    return Body(f"multipart/form-data; boundary={boundary}", data)


def postmark(letter: Letter, options: Mapping[str, str]) -> Body:
    """Postmark: addresses as one text each, one tag, and file's contents in Base64."""
    message, (to, cc, bcc) = _structure(letter)
    metadata = {**message.metadata, **({MARK: mark} if (mark := mark_of(letter)) else {})}
    return _json(
        {
            "From": _named(message.sender),
            "To": _listed(to),
            "Cc": _listed(cc),
            "Bcc": _listed(bcc),
            "ReplyTo": _listed(message.reply_to),
            "Subject": message.subject,
            "TextBody": message.content.text,
            "HtmlBody": message.content.html,
            "Headers": [{"Name": name, "Value": value} for name, value in message.headers],
            "Attachments": [
                {
                    "Name": each.name,
                    "Content": _base64(each.content),
                    "ContentType": media_type(each.name),
                    **({"ContentID": f"cid:{each.cid}"} if each.cid else {}),
                }
                for each in message.attachments
            ],
            "Tag": message.tags[0] if message.tags else None,
            "Metadata": metadata,
            "MessageStream": options.get("stream"),
        }
    )


def sendgrid(letter: Letter, options: Mapping[str, str]) -> Body:
    """SendGrid: one personalization, and the contents with their types."""
    message, (to, cc, bcc) = _structure(letter)
    people = {"to": to, "cc": cc, "bcc": bcc}
    content = [("text/plain", message.content.text), ("text/html", message.content.html)]
    mark = mark_of(letter)
    return _json(
        {
            "personalizations": [{name: [*map(_object, some)] for name, some in people.items() if some}],
            "from": _object(message.sender),
            "reply_to_list": [*map(_object, message.reply_to)],
            "subject": message.subject,
            "content": [{"type": kind, "value": text} for kind, text in content if text is not None],
            "headers": dict(message.headers),
            "attachments": [
                {
                    "content": _base64(each.content),
                    "type": media_type(each.name),
                    "filename": each.name,
                    "disposition": "inline" if each.cid else "attachment",
                    **({"content_id": each.cid} if each.cid else {}),
                }
                for each in message.attachments
            ],
            "categories": list(message.tags[:10]),
            "custom_args": {**message.metadata, **({MARK: mark} if mark else {})},
        }
    )


def resend(letter: Letter, options: Mapping[str, str]) -> Body:
    """Resend: addresses as lists of texts, and tags as names with values."""
    message, (to, cc, bcc) = _structure(letter)
    mark = mark_of(letter).replace(".", "_")
    return _json(
        {
            "from": _named(message.sender),
            "to": [*map(_named, to)],
            "cc": [*map(_named, cc)],
            "bcc": [*map(_named, bcc)],
            "reply_to": [*map(_named, message.reply_to)],
            "subject": message.subject,
            "text": message.content.text,
            "html": message.content.html,
            "headers": dict(message.headers),
            "attachments": [_resent(each) for each in message.attachments],
            "tags": [{"name": MARK, "value": mark}] if mark else None,
        }
    )


def _resent(each: Attachment) -> dict[str, str]:
    identified = {"content_id": each.cid} if each.cid else {}
    return {"filename": each.name, "content": _base64(each.content), **identified}


def _structure(letter: Letter) -> tuple[Message, tuple[Sequence[Mailbox], ...]]:
    """The parts of a letter, and its recipients as to, cc and bcc: only those of the envelope."""
    message = letter.message
    if message is None:
        raise Lacking("this provider needs the parts of a mail, and only its text is known")
    left = set(letter.recipients)
    found: list[list[Mailbox]] = []
    for some in (message.to, message.cc, message.bcc):
        found.append([each for each in some if each.spec in left])
        left.difference_update(each.spec for each in found[-1])
    found[2] += [Mailbox("", spec) for spec in letter.recipients if spec in left]
    if not found[0]:  # each provider wants one
        source = found[1] or found[2]
        found[0].append(source.pop(0))
    return message, tuple(found)


def _named(who: Mailbox) -> str:
    if not who.name:
        return who.spec
    escaped = who.name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}" <{who.spec}>'


def _listed(people: Sequence[Mailbox]) -> str:
    return ", ".join(map(_named, people))


def _object(who: Mailbox) -> dict[str, str]:
    return {"email": who.spec, **({"name": who.name} if who.name else {})}


def _base64(data: bytes) -> str:
    return b64encode(data).decode()


def _json(fields: Mapping[str, Any]) -> Body:
    kept = {name: value for name, value in fields.items() if value not in (None, "", [], {})}
    return Body("application/json", json.dumps(kept, ensure_ascii=False).encode())
