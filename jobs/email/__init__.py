"""The email job: renders a mail and sends it over SMTP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from packmule.jobs import current
from packmule.jobs.email.delivery.mailer import Mailer
from packmule.jobs.email.delivery.smtp.server import (
    InsecureServer,
    InvalidServer,
    MailRefused,
    TemporaryFailure,
)
from packmule.jobs.email.letter import Attachment, Content, InvalidMessage
from packmule.jobs.email.message.addresses import InvalidAddress, address
from packmule.jobs.email.message.compose import compose, content_key
from packmule.jobs.email.templating.rendering import InvalidTemplate, Renderer
from packmule.jobs.input_limits import InputLimits
from packmule.jobs.job import job
from packmule.jobs.storage import FileTooLarge, MissingFile, OutsideStorage, Storage

__all__ = [
    "InsecureServer",
    "InvalidAddress",
    "InvalidMessage",
    "InvalidServer",
    "InvalidTemplate",
    "MailRefused",
    "Mailer",
    "TemporaryFailure",
    "address",
    "email",
]

HOPELESS = (
    InsecureServer,
    InvalidAddress,
    InvalidMessage,
    InvalidServer,
    InvalidTemplate,
    MissingFile,
    OutsideStorage,
    MailRefused,
    FileTooLarge,
)
"""Errors that sending again would not fix."""

STEPS = 3
"""The steps of its progress: rendered, connected, sent."""


@job(queue="high", timeout=60, retries=5, give_up_on=HOPELESS, at_once=True)
def email(
    to: str | list[str],
    subject: str,
    body: str | None = None,
    *,
    html: str | None = None,
    template: str | None = None,
    variables: dict[str, Any] | None = None,
    attachments: list[str] | None = None,
    cc: str | list[str] | None = None,
    bcc: str | list[str] | None = None,
    reply_to: str | list[str] | None = None,
    sender: str | None = None,
) -> dict[str, Any]:
    """Send one mail to all of `to`, `cc` and `bcc`.

    Its content is either `body` (plain text) and/or `html`, sent as they are, or `template`, rendered with
    `variables`: `welcome` means `welcome.html` and/or `welcome.txt` in the templates folder. A mail with HTML
    only also gets a plain text made from it. A `subject` that contains `{{` is rendered with `variables` too;
    it may use variables, filters and `if`.
    `attachments` are paths in the storage. An address is `ada@example.org` or `Ada <ada@example.org>`.

    Returns `{"message_id": str, "accepted": [address, ...], "refused": {address: the server's reply},
    "bytes": size of the mail}`. Raises `InvalidAddress`, `InvalidMessage`, `InvalidTemplate` or
    `StorageError` if the mail can't be built; `MailRefused`, `TemporaryFailure`, `InsecureServer` or
    `InvalidServer` if the server accepted it for no recipient.

    If it runs again after a crash, it may send a second copy, with the Message-ID of the first.

    >>> email.enqueue("ada@example.org", "Hello {{ name }}", template="welcome",
    ...               variables={"name": "Ada"})  # doctest: +SKIP
    """
    mailer = current.resource(Mailer)
    current.progress(0, STEPS, "rendering")
    if template is None and variables and "{{" not in subject:
        raise InvalidMessage(
            "variables need a template, or a subject with {{ }}; body and html are sent as they are"
        )
    content = _content(mailer.renderer, body, html, template, variables or {})
    subject = mailer.renderer.subject(subject, variables or {}) if "{{" in subject else subject
    files = _attached(attachments) if attachments else []
    job_id = current.job_id()
    letter = compose(
        content,
        subject=subject,
        sender=sender or mailer.sender,
        to=_listed(to),
        cc=_listed(cc),
        bcc=_listed(bcc),
        reply_to=_listed(reply_to),
        attachments=files,
        key=content_key(job_id, subject, content, files) if job_id else None,
    )
    current.progress(1, STEPS, "connecting")
    refused = mailer.send(letter)
    current.progress(STEPS, STEPS, "sent")
    return {
        "message_id": letter.message_id,
        "accepted": [recipient for recipient in letter.recipients if recipient not in refused],
        "refused": refused,
        "bytes": len(letter.content),
    }


def _content(
    renderer: Renderer, body: str | None, html: str | None, template: str | None, variables: dict[str, Any]
) -> Content:
    if (template is None) == (body is None and html is None):
        raise InvalidMessage("give either a template, or a body and/or html")
    content = Content(body, html) if template is None else renderer.content(template, variables)
    if content.text is None and content.html is not None:
        from packmule.jobs.email.message.plaintext import plaintext  # noqa: PLC0415  keeps workers that send nothing small

        return Content(plaintext(content.html), content.html)
    return content


def _attached(paths: Sequence[str]) -> list[Attachment]:
    """The files at `paths`. Raises `InvalidMessage` before reading any if they are too large in total."""
    storage, limit = current.resource(Storage), current.resource(InputLimits).attachment_bytes
    total = sum(storage.size(path) for path in paths)
    if total > limit:
        raise InvalidMessage(
            f"the attachments have {total:,} bytes in total, over the limit of {limit:,}; "
            "send a link, or raise PACKMULE_MAX_ATTACHMENT_BYTES"
        )
    return [Attachment(PurePosixPath(path).name, storage.read_bytes(path, max_bytes=limit)) for path in paths]


def _listed(addresses: str | list[str] | None) -> list[str]:
    return [addresses] if isinstance(addresses, str) else addresses or []
