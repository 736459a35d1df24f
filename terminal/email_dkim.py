"""`packmule email dkim`: the DNS records of the keys that sign mails."""

from __future__ import annotations

import click

from packmule.terminal.app import App
from packmule.terminal.parameters import json_option
from packmule.terminal.say import say


@click.command("dkim")
@click.argument("domains", metavar="[DOMAIN...]", nargs=-1)
@json_option
@click.pass_obj
def email_dkim(app: App, domains: tuple[str, ...], json: bool) -> None:
    """Print the DNS records of the keys that sign mails.

    The keys are those in PACKMULE_DKIM, or only those of the given domains. --json prints each value in one
    piece.
    """
    from packmule.jobs.email.dkim.keys import InvalidDkim, read_key
    from packmule.terminal import show

    keys = [read_key(each) for each in app.settings.dkim]
    if not keys:
        raise InvalidDkim("no key signs mails: set PACKMULE_DKIM=s1._domainkey.example.org=/etc/dkim/s1.pem")
    found = [key for key in keys if not domains or key.domain in domains]
    if not found:
        known = ", ".join(sorted({key.domain for key in keys}))
        raise InvalidDkim(f"no key is for {', '.join(domains)}: there are keys for {known}")
    if json:
        show.as_json([{"name": key.name, "value": key.record, "bits": key.bits} for key in found])
        return
    for key in found:
        say(f"{key.name}. IN TXT (")
        for each in key.strings:
            say(f'    "{each}"')
        say(")")
