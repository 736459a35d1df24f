"""`packmule email intake`: bounces and complaints suppress whom they are about."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from packmule.terminal.app import App
from packmule.terminal.audit import Audited, audited
from packmule.terminal.say import complain, say


@click.command("intake", cls=Audited)
@click.argument("mailboxes", metavar="FILE|MAILDIR...", nargs=-1, required=True)
@click.option("--return-path", metavar="PATTERN", help="Of our mails: bounces+{to}@example.org.")
@click.pass_obj
def email_intake(app: App, mailboxes: tuple[str, ...], return_path: str | None) -> int:
    """Read bounces and complaints, and suppress whom they are about.

    Only reports of mails that were sent from here count. Of a Maildir each new mail is read once, and is
    then in its folder cur. FILE may be - for standard input. Exit with 1 if a mail could not be read.
    """
    from packmule.jobs.email.suppression.intake import Intake

    intake = Intake(app.client, return_path)
    for mailbox in mailboxes:
        if mailbox == "-":
            intake.take(sys.stdin.buffer, "standard input")
        else:
            intake.take_from(Path(mailbox))
    audited(lambda: {"mails": intake.mails, "suppressed": len(intake.suppressed)})
    kinds = intake.kinds
    say(
        f"{intake.mails:,} mails: {kinds['hard']:,} hard and {kinds['soft']:,} soft bounces, "
        f"{kinds['complaint']:,} complaints, {intake.unknown:,} of mails that were not sent from here; "
        f"{len(intake.suppressed):,} addresses suppressed"
    )
    for reason in intake.reasons:
        complain(reason)
    return int(bool(intake.unreadable))
