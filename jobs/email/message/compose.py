"""A mail from what it says: its headers, its parts and its envelope."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Mapping, Sequence
from email.utils import formatdate
from functools import lru_cache
from hashlib import blake2b
from typing import Any

from packmule.jobs.email.letter import Attachment, Content, InvalidMessage, Letter, Mailbox, Message
from packmule.jobs.email.message.addresses import parse
from packmule.jobs.email.message.allowed import custom, labels, line_of, unsubscribing
from packmule.jobs.email.message.headers import checked, of_addresses, of_text
from packmule.jobs.email.message.mime import file_part, multipart, text_part
from packmule.jobs.email.message.verp import return_path as path_for

MAX_RECIPIENTS = 500
"""Addresses in to, cc and bcc together: everybody in to and cc sees all of them."""

MAX_SUBJECT = 2_000

AUTO_SUBMITTED = ("Auto-Submitted", "auto-generated")
"""Tells vacation responders not to reply (RFC 3834)."""

_DOT_LINE = re.compile(rb"\n\.")  # found twice as fast as by `in`

_PLAIN = re.compile(r"[0-9a-z]{26,34}")


def compose(
    content: Content,
    *,
    subject: str,
    to: Sequence[str],
    cc: Sequence[str] = (),
    bcc: Sequence[str] = (),
    key: str | None = None,
    **frame: Any,
) -> Letter:
    """Build one mail, whose `frame` is described at `Frame`.

    >>> compose(Content("Soon more.", None), subject="Hello", sender="mule@example.org",
    ...         to=["ada@example.com"], key="hello:ada").recipients
    ('ada@example.com',)

    Raises `InvalidAddress`, and `InvalidMessage` for what a mail can't contain.
    """
    return Frame(**frame).letter(content, subject, to, cc, bcc, key=key)


class Frame:
    """What all mails of a kind have in common, checked and built once; `letter` builds each.

    `return_path` is described at `verp.return_path`, `headers` at `allowed.custom` and `unsubscribe` at
    `allowed.unsubscribing`. Raises `InvalidAddress` and `InvalidMessage`.
    """

    def __init__(
        self,
        sender: str,
        *,
        reply_to: Sequence[str] = (),
        attachments: Sequence[Attachment] = (),
        headers: Mapping[str, str] | None = None,
        unsubscribe: str | Sequence[str] | None = None,
        return_path: str | None = None,
        tags: Sequence[str] = (),
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self._author = parse(sender)
        self._from = of_addresses("From", [self._author])
        self._reply_to = reply_to
        self._attachments = tuple(attachments)
        self._return_path = return_path
        self._tags, self._metadata = labels(tags, metadata)
        given = custom(headers) if headers else ()
        is_marked = any(name.lower() == AUTO_SUBMITTED[0].lower() for name, _ in given)
        self._headers = given if is_marked else (AUTO_SUBMITTED, *given)
        self._ways = unsubscribing(unsubscribe)
        self._body: tuple[Content, bytes, bool] | None = None
        """The last content and what became of it, for mails that share it."""

    def letter(
        self,
        content: Content,
        subject: str,
        to: Sequence[str],
        cc: Sequence[str] = (),
        bcc: Sequence[str] = (),
        *,
        unsubscribe: str | Sequence[str] | None = None,
        key: str | None = None,
    ) -> Letter:
        """Build a mail; recipients in `bcc` appear in its envelope only.

        The Message-ID depends only on `key`, the key of the send. If a job runs again after its outcome was
        lost, the second copy has the ID of the first, so that mail systems can suppress it and a person can
        recognise it. Without a key it is random. `unsubscribe` is its own, in place of the frame's.

        Raises `InvalidAddress`, and `InvalidMessage` for what a mail can't contain.
        """
        author = self._author
        readers, copies, hidden, answers = people(to, cc, bcc, self._reply_to)
        recipients = tuple(dict.fromkeys([mailbox.spec for mailbox in (*readers, *copies, *hidden)]))
        if len(checked("subject", subject)) > MAX_SUBJECT:
            raise InvalidMessage(f"the subject has more than {MAX_SUBJECT:,} characters")
        more = (*self._headers, *(unsubscribing(unsubscribe) if unsubscribe else self._ways))
        letter_id = message_id(key or secrets.token_hex(16), author.spec)
        lines = [self._from]
        for name, listed in (("To", readers), ("Cc", copies), ("Reply-To", answers)):
            if listed:
                lines.append(of_addresses(name, listed))
        lines += of_text("Subject", subject), _date(int(time.time())), f"Message-ID: {letter_id}"
        lines += [line_of(name, value) for name, value in more]
        lines.append("MIME-Version: 1.0\r\n")
        body, is_dotless = self._body_of(content)
        return Letter(
            letter_id,
            path_for(self._return_path, recipients) if self._return_path else author.spec,
            recipients,
            "\r\n".join(lines).encode() + body,
            not all(spec.isascii() for spec in (author.spec, *recipients, *(each.spec for each in answers))),
            Message(
                subject,
                author,
                readers,
                copies,
                hidden,
                answers,
                content,
                self._attachments,
                more,
                self._tags,
                self._metadata,
            ),
            is_dotless,
        )

    def _body_of(self, content: Content) -> tuple[bytes, bool]:
        """The body, and whether it is dotless."""
        if self._body is None or self._body[0] != content:
            body = b"".join(_body(content, self._attachments))
            self._body = content, body, not _DOT_LINE.search(body)
        return self._body[1:]


@lru_cache(maxsize=2)
def _date(now: int) -> str:
    return f"Date: {formatdate(now, usegmt=True)}"


def message_id(key: str, sender: str) -> str:
    """The Message-ID of a send's mail from `sender`. The ledger's keys stand in it."""
    token = (
        key if _PLAIN.fullmatch(key) else blake2b(key.encode(errors="replace"), digest_size=16).hexdigest()
    )
    return f"<{token}@{sender.rpartition('@')[2]}>"


def people(
    to: Sequence[str], cc: Sequence[str], bcc: Sequence[str], reply_to: Sequence[str]
) -> tuple[tuple[Mailbox, ...], ...]:
    """The addresses of a mail, parsed. Raises `InvalidAddress`, and `InvalidMessage` for too many or none."""
    count = len(to) + len(cc) + len(bcc)
    if not count:
        raise InvalidMessage("a mail needs at least one address in to, cc or bcc")
    if max(count, len(reply_to)) > MAX_RECIPIENTS:
        raise InvalidMessage(
            f"the mail has {max(count, len(reply_to)):,} addresses, over the limit of {MAX_RECIPIENTS}: each "
            "reader would see all of them; send each a mail of their own, as a batch or a bulk send"
        )
    return tuple(tuple(map(parse, texts)) for texts in (to, cc, bcc, reply_to))


def _body(content: Content, attachments: Sequence[Attachment]) -> list[bytes]:
    """The parts: alternatives from plain to rich, the HTML with its images, then the attachments."""
    images = [attachment for attachment in attachments if attachment.cid is not None]
    files = [attachment for attachment in attachments if attachment.cid is None]
    # Nobody who writes a mail can know its boundaries, so no text can end a part.
    token = secrets.token_hex(12)
    alternatives = []
    if content.text is not None or content.html is None:
        alternatives.append(text_part("plain", content.text or ""))
    if content.html is not None:
        html = text_part("html", content.html)
        if images:
            _check_images(content.html, images)
            html = multipart("related", f"=_{token}_r", [html, *map(file_part, images)])
        alternatives.append(html)
    elif images:
        raise InvalidMessage("images are shown by the HTML of a mail, and this mail has none")
    body = alternatives[0]
    if len(alternatives) > 1:
        body = multipart("alternative", f"=_{token}_a", alternatives)
    return multipart("mixed", f"=_{token}_m", [body, *map(file_part, files)]) if files else body


def _check_images(html: str, images: Sequence[Attachment]) -> None:
    for image in images:
        if f"cid:{image.cid}" not in html:
            raise InvalidMessage(
                f'no part of the HTML shows the image {image.cid}: write src="cid:{image.cid}"'
            )
