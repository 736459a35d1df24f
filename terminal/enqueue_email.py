"""`packmule enqueue email`: one mail, or one to each of a list."""

from __future__ import annotations

from typing import Any

import click

from packmule.terminal.app import App
from packmule.terminal.bulk import LIST_OPTIONS, bulk_options, enqueue_bulk
from packmule.terminal.enqueue_options import enqueue_options, split
from packmule.terminal.parameters import Duration, assignments, variables_option

LISTS = ("to", "cc", "bcc", "reply_to", "unsubscribe", "tags")
PAIRS = {"variables": "--var", "headers": "--header", "metadata": "--metadata", "images": "--image"}
FILES = ("attachments", "images")


class InSections(click.Command):
    """Shows its options in sections, since they are many."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options of the mail, of a list, and of the job."""
        options = [each for each in self.get_params(ctx) if isinstance(each, click.Option)]
        names = [str(each.name) for each in options]
        begins = [0, names.index("recipients"), names.index("queue"), len(options)]
        for title, begin, end in zip(("Mail", "List", "Job"), begins, begins[1:], strict=False):
            with formatter.section(title):
                records = [each.get_help_record(ctx) for each in options[begin:end]]
                formatter.write_dl([each for each in records if each])


@click.command("email", cls=InSections)
@click.option("--to", multiple=True, help="A recipient; can be repeated.")
@click.option("--cc", multiple=True, help="A recipient of a copy; can be repeated.")
@click.option("--bcc", multiple=True, help="A recipient of a blind copy; can be repeated.")
@click.option("--subject", required=True, help="The subject.")
@click.option("--body", help="The plain text.")
@click.option("--html", help="The HTML.")
@click.option("--template", help="Use this template instead of --body and --html.")
@variables_option
@click.option(
    "--attach", "attachments", multiple=True, metavar="FILE", help="Attach this file; can be repeated."
)
@click.option(
    "--image",
    "images",
    multiple=True,
    metavar="NAME=FILE",
    help='An image for <img src="cid:NAME"> in the HTML; can be repeated.',
)
@click.option("--from", "sender", help="The sender.  [default: PACKMULE_MAIL_FROM]")
@click.option("--reply-to", multiple=True, help="Send replies to this address; can be repeated.")
@click.option(
    "--header",
    "headers",
    multiple=True,
    metavar="NAME=VALUE",
    help="Add a header such as X-Campaign=spring; can be repeated.",
)
@click.option(
    "--unsubscribe",
    multiple=True,
    metavar="URL",
    help="Where recipients unsubscribe: https://... or mailto:...; can be repeated.",
)
@click.option("--return-path", metavar="ADDRESS", help="Where bounces go: bounces+{to}@example.org.")
@click.option(
    "--tag", "tags", multiple=True, help="A tag for the statistics of an HTTP provider; can be repeated."
)
@click.option(
    "--metadata", multiple=True, metavar="NAME=VALUE", help="Like --tag, with a value; can be repeated."
)
@click.option("--key", help="Send it once to each recipient under this key, however often it is enqueued.")
@click.option(
    "--on-unknown",
    type=click.Choice(["park", "resend"]),
    help="Park or resend a mail if the server's answer is lost.  [default: park]",
)
@click.option(
    "--give-up-after", type=Duration(), help="Retry deferred recipients for this long.  [default: 4d]"
)
@bulk_options
@enqueue_options
@click.pass_obj
def enqueue_email(app: App, /, recipients: str | None, wait: bool, json: bool, **given: Any) -> int:
    """Send an e-mail from a text or a template.

    One mail goes to all --to recipients, or one mail to each recipient of a list. A list is checked first;
    its columns are variables of the subject and the template. It makes a batch, whose id is printed.

    Each FILE is copied into the storage; store:PATH names one that is there already.
    """
    from packmule.jobs.email import address, email
    from packmule.terminal.enqueue import enqueue_calls, stored

    listing = {name: given.pop(name) for name in LIST_OPTIONS}
    if (recipients is None) == (not given["to"]) or (recipients and (given["cc"] or given["bcc"])):
        raise click.UsageError("give --to, or --recipients without --cc and --bcc")
    if recipients is None and any(listing.values()):
        named = ", ".join(f"--{name.replace('_', '-')}" for name in LIST_OPTIONS)
        raise click.UsageError(f"{named} are for a list: give --recipients")

    for each in (*given["to"], *given["cc"], *given["bcc"], *given["reply_to"], given["sender"]):
        if each is not None:
            address(each)
    call, options = split(given)
    call |= {name: list(call[name]) for name in (*LISTS, "attachments")}
    call |= {name: assignments(option, call[name]) for name, option in PAIRS.items()}
    call = {name: value for name, value in call.items() if value not in ([], {})}
    if recipients is None:
        return enqueue_calls(app, email.job, [call], options, wait, json, files=FILES)
    call |= {name: stored(app, call[name]) for name in FILES if name in call}
    return enqueue_bulk(app, recipients, listing, call, options, wait, json)
