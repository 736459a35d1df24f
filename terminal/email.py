"""`packmule email`: the templates of mails, and what became of mails that were sent."""

from __future__ import annotations

import click

from packmule.terminal.email_bulk import email_bulk, email_results
from packmule.terminal.email_dkim import email_dkim
from packmule.terminal.email_intake import email_intake
from packmule.terminal.email_templates import email_lint, email_preview
from packmule.terminal.mails import mail_list, mail_resolve, mail_show


@click.group()
def email() -> None:
    """Preview templates, and list, show and resolve mails."""


email.add_command(email_preview)
email.add_command(email_lint)
email.add_command(email_bulk)
email.add_command(email_results)
email.add_command(email_intake)
email.add_command(email_dkim)
for each in (mail_list, mail_show, mail_resolve):
    email.add_command(each)
