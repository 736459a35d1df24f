"""`packmule email intake`: bounces and complaints suppress whom they are about."""

from __future__ import annotations

import sys

import click

from packmule.terminal.app import App
from packmule.terminal.audit import Audited, audited
from packmule.terminal.say import complain, say


@click.command("intake", cls=Audited)
@click.argument("mailboxes", metavar="[FILE|MAILDIR|URL...]", nargs=-1)
@click.option(
    "--return-path",
    metavar="PATTERN",
    help="Return path of sent mails: bounces+{to}@example.org.  [default: PACKMULE_MAIL_RETURN_PATH]",
)
@click.pass_obj
def email_intake(app: App, mailboxes: tuple[str, ...], return_path: str | None) -> int:
    """Read bounces and complaints, and suppress their recipients.

    Only reports about mails that Packmule sent count. Each new mail of a Maildir is read once and moved to
    its folder cur. FILE may be - for standard input. URL is a folder of an IMAP server, whose unread mails
    are read, such as imaps://bounces@mail.example.org/INBOX; its password is PACKMULE_SECRET_IMAP. Without
    arguments, the mailboxes in PACKMULE_BOUNCES are read. Exit with 1 if a mail could not be read.
    """
    from packmule.jobs.email.received import MOST_BYTES
    from packmule.jobs.email.suppression.intake import Intake, NoSuchMailbox

    settings = app.settings
    if not (mailboxes or settings.bounces):
        raise NoSuchMailbox("name a file, a Maildir or the URL of an IMAP folder, or set PACKMULE_BOUNCES")
    intake = Intake(app.client, return_path or settings.mail_return_path or None, settings.mail_keep)
    for mailbox in mailboxes or settings.bounces:
        if mailbox == "-":
            intake.take(sys.stdin.buffer.read(MOST_BYTES + 1), "standard input")
        else:
            intake.take_from(mailbox)
    audited(lambda: {"mails": intake.mails, "suppressed": len(intake.suppressed)})
    kinds = intake.kinds
    say(
        f"{intake.mails:,} {'mail' if intake.mails == 1 else 'mails'}: "
        f"{kinds['hard']:,} hard and {kinds['soft']:,} soft bounces, "
        f"{kinds['complaint']:,} complaints, {intake.unknown:,} about mails that Packmule didn't send; "
        f"{len(intake.suppressed):,} addresses suppressed"
    )
    for reason in intake.reasons:
        complain(reason)
    for mailbox in intake.unfinished:
        complain(f"{mailbox} has more mails, which the next run reads")
    return int(bool(intake.unreadable))
