"""The email job: renders a mail and sends it over SMTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from packmule.jobs import current
from packmule.jobs.email.calls import check, envelope
from packmule.jobs.email.delivery.mailer import Mailer
from packmule.jobs.email.delivery.route import TemporaryFailure
from packmule.jobs.email.delivery.smtp.connection import InsecureServer
from packmule.jobs.email.delivery.smtp.server import MailRefused
from packmule.jobs.email.delivery.ways import InvalidServer
from packmule.jobs.email.job import perform
from packmule.jobs.email.ledger import GIVE_UP_AFTER, Ledger, OnUnknown, client_of_ledger
from packmule.jobs.email.ledger.names import InvalidKey
from packmule.jobs.email.ledger.verdict import MailUnknown
from packmule.jobs.email.letter import InvalidMessage, Letter
from packmule.jobs.email.message.addresses import InvalidAddress, address
from packmule.jobs.email.message.draft import Draft
from packmule.jobs.email.suppression.links import links_for, personal
from packmule.jobs.email.templating.rendering import InvalidTemplate
from packmule.jobs.input_limits import InputLimits
from packmule.jobs.job import job
from packmule.jobs.storage import FileTooLarge, MissingFile, OutsideStorage, Storage

if TYPE_CHECKING:
    from packmule.jobs.email.bulk.send import BulkSend, preview_bulk, send_bulk

__all__ = [
    "BulkSend",
    "InsecureServer",
    "InvalidAddress",
    "InvalidKey",
    "InvalidMessage",
    "InvalidServer",
    "InvalidTemplate",
    "Ledger",
    "MailRefused",
    "MailUnknown",
    "Mailer",
    "TemporaryFailure",
    "address",
    "email",
    "preview_bulk",
    "send_bulk",
]

_BULK = ("BulkSend", "preview_bulk", "send_bulk")


def __getattr__(name: str) -> Any:
    """Load bulk sends when they are asked for: workers that send single mails do without."""
    if name not in _BULK:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from packmule.jobs.email.bulk import send  # noqa: PLC0415

    return getattr(send, name)


HOPELESS = (
    InsecureServer,
    InvalidAddress,
    InvalidKey,
    InvalidMessage,
    InvalidServer,
    InvalidTemplate,
    MissingFile,
    OutsideStorage,
    MailRefused,
    MailUnknown,
    FileTooLarge,
)
"""Errors that sending again would not fix."""


@job(queue="high", timeout=60, retries=5, give_up_on=HOPELESS, check=check)
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
    images: dict[str, str] | None = None,
    headers: dict[str, str] | None = None,
    unsubscribe: str | list[str] | None = None,
    return_path: str | None = None,
    tags: list[str] | None = None,
    metadata: dict[str, str] | None = None,
    key: str | None = None,
    on_unknown: OnUnknown = "park",
    give_up_after: float = GIVE_UP_AFTER,
) -> dict[str, Any]:
    """Send one mail to all of `to`, `cc` and `bcc`, once to each.

    Its content is either `body` (plain text) and/or `html`, or `template`, rendered with
    `variables`: `welcome` means `welcome.html` and/or `welcome.txt` in the templates folder. A mail with HTML
    only also gets a plain text made from it. A `subject` that contains `{{` is rendered too, if there are a
    template or variables; it may use variables, filters and `if`. `attachments` are paths in the storage, and
    `images` too, by the names that the HTML uses: `{"logo": "logo.png"}` for `<img src="cid:logo">`. An
    address is `ada@example.org` or `Ada <ada@example.org>`.

    `headers` are others such as `X-Campaign` or `In-Reply-To`. `unsubscribe` is an https URL, to which mail
    readers post, and/or a mailto URL; `{token}` in it becomes what names and proves the recipient, for the
    dashboard's `/unsubscribe/{token}`. `return_path` is where bounces go; it may name the recipient:
    `bounces+{to}@example.org`. HTTP providers get `tags` and `metadata`.

    A recipient gets what is sent under one `key` once, whoever sends it again and how often. Without a key,
    that holds within this job, or within its batch for mails of the same content. Recipients that a server
    refuses for now are tried again for `give_up_after` seconds. If a server's answer is lost, nobody knows
    whether it took the mail: `on_unknown` says whether the job fails then ("park") or sends it again.

    Returns `{"message_id": str, "accepted": [address, ...], "refused": {address: the server's reply},
    "suppressed": {address: why}, "bytes": size of the mail, 0 if it was sent earlier}`. Raises
    `InvalidAddress`, `InvalidMessage`, `InvalidTemplate` or `StorageError` if the mail can't be built;
    `MailRefused`, `InsecureServer` or `InvalidServer` if all recipients were refused, and `MailUnknown`.

    >>> email.enqueue("ada@example.org", "Hello {{ name }}", template="welcome",
    ...               variables={"name": "Ada"})  # doctest: +SKIP
    """
    arguments = dict(locals())

    def build(mailer: Mailer, message_key: str) -> Letter:
        draft = Draft(
            mailer.renderer,
            sender or mailer.sender,
            subject,
            body,
            html,
            template,
            reply_to=reply_to,
            headers=headers,
            unsubscribe=personal(unsubscribe, envelope(arguments), links_for(client_of_ledger())),
            return_path=return_path or mailer.return_path,
            tags=tags or (),
            metadata=metadata,
        )
        if attachments or images:
            limits = current.resource(InputLimits)
            draft = draft.with_files(current.resource(Storage), limits.attachment_bytes, attachments, images)
        return draft.letter(to, cc, bcc, variables=variables, key=message_key)

    return perform(arguments, build)
