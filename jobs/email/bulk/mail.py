"""What all recipients of a bulk send get, and the mail that one of them gets."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import msgspec

from packmule.jobs.email.letter import InvalidMessage, Letter
from packmule.jobs.email.message.draft import Draft, check_variables
from packmule.jobs.email.templating.rendering import Renderer
from packmule.jobs.job_type import InvalidCall


class MailFields(TypedDict, total=False):
    """What a bulk send may say of its mails besides subject and body; the `email` job explains each."""

    html: str | None
    template: str | None
    variables: dict[str, Any] | None
    attachments: list[str] | None
    images: dict[str, str] | None
    reply_to: str | list[str] | None
    sender: str | None
    headers: dict[str, str] | None
    unsubscribe: str | list[str] | None
    return_path: str | None
    tags: list[str] | None
    metadata: dict[str, str] | None


class BulkContent(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What is said of the mails of a bulk send; the `email` job explains each."""

    subject: str
    body: str | None = None
    html: str | None = None
    template: str | None = None
    variables: dict[str, Any] | None = None
    attachments: list[str] | None = None
    images: dict[str, str] | None = None
    reply_to: str | list[str] | None = None
    sender: str | None = None
    headers: dict[str, str] | None = None
    unsubscribe: str | list[str] | None = None
    return_path: str | None = None
    tags: list[str] | None = None
    metadata: dict[str, str] | None = None


class BulkMail(BulkContent, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The mail of a bulk send: `column` is the variable that has each recipient's address."""

    column: str = "email"

    def check_variables(self, row: Mapping[str, Any]) -> None:
        """Refuse a mail that leaves out its variables or shows the names of those of `row`.

        Raises `InvalidMessage`.
        """
        check_variables(self.variables, self.template, self.subject)
        for name in re.findall(r"\{\{\s*(\w+)", f"{self.body or ''}\n{self.html or ''}"):
            if name in row:
                raise InvalidMessage(
                    f"body and html are sent as they are, with {{{{ {name} }}}} in them: write them into a "
                    "template (on the command line: --template), which shows each recipient's own"
                )

    def draft(self, renderer: Renderer, sender: str, return_path: str | None = None) -> Draft:
        """The mail without its recipients; files are not read.

        `sender` and `return_path` are those of a mail that names none.

        Raises `InvalidMessage`.
        """
        return Draft(
            renderer,
            self.sender or sender,
            self.subject,
            self.body,
            self.html,
            self.template,
            reply_to=self.reply_to,
            headers=self.headers,
            unsubscribe=self.unsubscribe,
            return_path=self.return_path or return_path,
            tags=self.tags or (),
            metadata=self.metadata,
        )

    def letter(
        self,
        draft: Draft,
        row: dict[str, Any],
        key: str,
        unsubscribe: str | Sequence[str] | None = None,
    ) -> Letter:
        """The mail to one recipient, whose variables are `row`; `unsubscribe` is a link of its own.

        Raises `InvalidAddress`, `InvalidMessage` and `InvalidTemplate`.
        """
        variables = None
        if self.template is not None or "{{" in self.subject:
            variables = {**self.variables, **row} if self.variables else row
        return draft.letter(row[self.column], variables=variables, key=key, unsubscribe=unsubscribe)


def bulk_mail(subject: str, body: str | None, fields: Mapping[str, Any], column: str) -> BulkMail:
    """The mail that a call describes. Raises `InvalidCall` for a field that has another type, or none."""
    given = {"subject": subject, "body": body, "column": column, **fields}
    try:
        return msgspec.convert(given, BulkMail)
    except msgspec.ValidationError as error:
        text, _, place = str(error).partition(" - at `$.")
        what = f"the bulk mail's {place.rstrip('`')}" if place else "the bulk mail"
        raise InvalidCall(f"{what}: {text}") from None
