"""A bulk send before it is enqueued: its list is checked, three mails are made, and the ledger is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from redis import Redis

from packmule.jobs.email.bulk.before import Before, look
from packmule.jobs.email.bulk.columns import shown
from packmule.jobs.email.bulk.mail import BulkMail, bulk_mail
from packmule.jobs.email.bulk.recipients import MAX_BAD, Checked, Recipients, check
from packmule.jobs.email.bulk.table import Listed
from packmule.jobs.email.ledger import names
from packmule.jobs.email.ledger.reader import counts_of
from packmule.jobs.email.letter import InvalidMessage, Letter
from packmule.jobs.email.message.addresses import InvalidAddress, parse
from packmule.jobs.email.outcome import State
from packmule.jobs.email.templating.rendering import NOT_GIVEN, InvalidTemplate, Renderer
from packmule.jobs.storage import temporary

MADE_SIGN = "list:"
"""What the key of a send begins with that was given none."""


class Sample(msgspec.Struct, frozen=True):
    """The mail that one recipient gets, or the `error` why there is none; attachments are left out."""

    to: str
    subject: str = ""
    text: str | None = None
    html: str | None = None
    error: str | None = None


class Report(msgspec.Struct, frozen=True):
    """What a bulk send would do, or does: what its rows are, and what is known."""

    key: str
    checked: Checked
    before: Before
    samples: list[Sample]

    @property
    def to_send(self) -> int:
        """How many recipients get the mail, as far as is known now."""
        return self.checked.recipients - self.before.sent - self.before.unknown - self.before.suppressed


class Templating(NamedTuple):
    """What renders mails here, and the sender of those that name none."""

    renderer: Renderer
    sender: str


class Plan(NamedTuple):
    """A bulk send that can be enqueued, while its recipients are on disk."""

    recipients: Recipients
    mail: BulkMail
    report: Report
    counts: Mapping[State, int]
    """How many mails of its key were in which state, before the report's look at them."""


@contextmanager
def planned(
    listed: Listed,
    content: tuple[str, str | None, Mapping[str, Any]],
    templating: Templating,
    client: Redis,
    *,
    key: str | None = None,
    column: str | None = None,
    max_bad: float = MAX_BAD,
    bad_rows: Path | None = None,
) -> Iterator[Plan]:
    """Check the list and the mail, whose `content` is its subject, its body and its other fields.

    All bad rows are written to `bad_rows`, if that is given.

    Raises what `recipients.check` does, `InvalidCall` and `InvalidKey`; and `InvalidAddress`,
    `InvalidMessage` or `InvalidTemplate` if none of three mails can be made: to the first, a middle and the
    last recipient.
    """
    with temporary.folder() as folder:
        recipients = check(listed, folder, column, max_bad, bad_rows)
        checked = recipients.checked
        mail = bulk_mail(*content, checked.variable)
        key = key if key is not None else _made_key(checked, mail)
        send = names.send_of_key(key)
        samples = _samples(recipients, mail, templating)
        counts = counts_of(client, send)
        before = look(client, send, (parse(row[mail.column]).spec for row in recipients))
        yield Plan(recipients, mail, Report(key, checked, before, samples), counts)


def _made_key(checked: Checked, mail: BulkMail) -> str:
    """The key of this list and this mail: the same command again is the same send."""
    return MADE_SIGN + sha256(checked.digest.encode() + msgspec.json.encode(mail)).hexdigest()[:24]


def _samples(recipients: Recipients, mail: BulkMail, templating: Templating) -> list[Sample]:
    count = recipients.checked.recipients
    wanted = {0, count // 2, count - 1}
    rows = [row for number, row in enumerate(recipients) if number in wanted]
    mail.check_variables(rows[0])
    found, errors = [], []
    draft = mail.draft(*templating)
    for row in rows:
        to = parse(row[mail.column]).spec
        try:
            letter = mail.letter(draft, row, names.mail_id("sample", to))
        except (InvalidAddress, InvalidMessage, InvalidTemplate) as error:
            errors.append(error)
            found.append(Sample(to, error=str(error)))
        else:
            found.append(_sample(to, letter))
    if len(errors) == len(rows):
        if NOT_GIVEN in str(errors[0]):
            raise InvalidTemplate(f"{errors[0]}; {recipients.checked.source} gives {shown(list(rows[0]))}")
        raise errors[0]
    return found


def _sample(to: str, letter: Letter) -> Sample:
    said = letter.message
    if said is None:
        return Sample(to)
    return Sample(to, said.subject, said.content.text, said.content.html)
