"""The job that reads the mailboxes of bounces in the settings; the scheduler enqueues it each minute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from packmule.config import SettingsError
from packmule.errors import Error
from packmule.jobs import context, current
from packmule.jobs.email.ledger import Ledger
from packmule.jobs.email.suppression.imap import InvalidMailbox, MailboxRefused, MailboxUnavailable
from packmule.jobs.email.suppression.intake import Intake, NoSuchMailbox
from packmule.jobs.job import job
from packmule.jobs.schedule import Schedule, of_settings

SCHEDULE = "email-intake"
EVERY = "1m"
KEPT = 3600
"""Seconds for which results are kept, of which there is one a minute."""


class NotCollected(Error):
    """A mailbox of bounces could not be read; the others were."""


FAULTS = (NoSuchMailbox, InvalidMailbox, MailboxRefused, MailboxUnavailable, SettingsError)
"""Errors of one mailbox; others may still be read."""


@dataclass(frozen=True, slots=True)
class Mailboxes:
    """Maildirs and folders of IMAP servers, and the pattern of our mails' return paths; lent to the job."""

    names: tuple[str, ...]
    return_path: str | None = None


@job(queue="low", timeout=600, singleton=True, singleton_policy="skip", result_ttl=KEPT)
def email_intake() -> dict[str, Any]:
    """Take bounces and complaints from the mailboxes in `PACKMULE_BOUNCES`, each once.

    Returns how many mails there were, of which kinds, and how many addresses are suppressed now. Raises
    `NotCollected` if a mailbox could not be read, after the others were.
    """
    mailboxes, ledger = context.resources.get(Mailboxes), current.resource(Ledger)
    if not isinstance(mailboxes, Mailboxes):
        raise NotCollected("this worker has no mailbox: set PACKMULE_BOUNCES for workers and schedulers")
    intake, faults = Intake(ledger.client, mailboxes.return_path, ledger.keep), list[str]()
    for mailbox in mailboxes.names:
        try:
            intake.take_from(mailbox)
        except FAULTS as error:
            faults.append(str(error))
    for reason in intake.reasons:
        current.log(reason, "warning")
    for mailbox in intake.unfinished:
        current.log(f"{mailbox} has more mails, which wait for the next run")
    if faults:
        raise NotCollected("; ".join(faults))
    return {
        "mails": intake.mails,
        "kinds": dict(intake.kinds),
        "unknown": intake.unknown,
        "suppressed": len(intake.suppressed),
    }


def collecting(queue: str) -> Schedule:
    """The schedule of the job, in a queue that workers serve."""
    return of_settings(SCHEDULE, email_intake.job.name, EVERY, queue)
