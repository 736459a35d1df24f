"""`packmule email list`, `show` and `resolve`: what became of mails, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from packmule.terminal.app import App
from packmule.terminal.audit import Audited, audited
from packmule.terminal.parameters import BatchId, F, JobId, Moment, json_option, with_options
from packmule.terminal.say import complain, say

if TYPE_CHECKING:
    from packmule.jobs.email.ledger.entry import Entry
    from packmule.jobs.email.ledger.reader import MailFilter

STATES = ("unknown", "deferred", "suppressed", "sending", "reserved")
COLUMNS = ("recipient", "state", "since", "next try", "job", "answer")


def mail_filter_options(command: F) -> F:
    """The options of a filter of mails, which `_wanted` takes by their names."""
    options: list[Callable[[F], F]] = [
        click.option("--address", help="Only mails to this address."),
        click.option("--domain", help="Only mails to addresses of this domain."),
        click.option("--job", type=JobId(), help="Only mails of this job."),
        click.option("--batch", type=BatchId(), help="Only mails of jobs in this batch."),
        click.option("--key", help="Only mails that were sent under this key."),
        click.option(
            "--since", type=Moment(), help="Only mails in their state since then: 10m, 2026-12-01T08:00."
        ),
        click.option("--until", type=Moment(), help="Only mails in their state before that."),
    ]
    return with_options(command, options)


@click.command("list")
@click.option(
    "--state",
    "states",
    type=click.Choice(STATES),
    multiple=True,
    help="Only mails in this state; can be repeated.  [default: all]",
)
@mail_filter_options
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="At most this many mails."
)
@click.option("--after", metavar="CURSOR", help="Continue an earlier list, which printed this cursor.")
@json_option
@click.pass_obj
def mail_list(
    app: App, /, states: tuple[str, ...], limit: int, after: str | None, json: bool, **given: Any
) -> None:
    """List mails that are unknown, deferred, suppressed or being sent.

    To see accepted and refused mails, use: packmule email show JOB.
    """
    from packmule.jobs.email.ledger.reader import search
    from packmule.terminal import show

    found = search(app.client, _wanted(states or STATES, given), limit, after)
    if json:
        show.as_json([each._asdict() for each in found.mails])
        return
    show.table(COLUMNS, _rows(found.mails), "no such mails", shorten="answer", ids="job")
    if found.cursor:
        complain(f"there may be more: --after {found.cursor}")


@click.command("show")
@click.argument("job", required=False, type=JobId())
@click.option("--key", help="The mails that were sent under this key, with --to.")
@click.option("--message-id", metavar="ID", help="The mail that has this Message-ID, with --to.")
@click.option("--to", "recipients", metavar="ADDRESS", multiple=True, help="A recipient; can be repeated.")
@json_option
@click.pass_obj
def mail_show(
    app: App,
    /,
    job: str | None,
    key: str | None,
    message_id: str | None,
    recipients: tuple[str, ...],
    json: bool,
) -> None:
    """Show the outcome of a job's mail for each recipient.

    The ledger remembers mails for longer than a job is kept. After that, give the mail's key or Message-ID,
    and its recipients.
    """
    from packmule.jobs.email.calls import mails_of_job
    from packmule.jobs.email.ledger import names, reader
    from packmule.jobs.email.message.addresses import parse
    from packmule.terminal import show

    if sum(each is not None for each in (job, key, message_id)) != 1 or (job is None) != bool(recipients):
        raise click.UsageError("name a job; or a --key or --message-id, and --to for each recipient")
    to = [parse(each).spec for each in recipients]
    if job is not None:
        found = mails_of_job(app.client, job)
    elif key is not None:
        found = list(filter(None, reader.of_send(app.client, names.send_of_key(key), to)))
    else:
        wanted = [(message_id or "", recipient) for recipient in to]
        found = list(filter(None, reader.of_messages(app.client, wanted)))
    if json:
        show.as_json([each._asdict() for each in found])
        return
    show.table(COLUMNS, _rows(found), "the ledger has no such mail", shorten="answer", ids="job")


@click.command("resolve", cls=Audited)
@click.argument("jobs", metavar="[JOB...]", nargs=-1, type=JobId())
@click.option("--sent", is_flag=True, help="These mails were sent.")
@click.option("--not-sent", is_flag=True, help="They were not: send them again.")
@mail_filter_options
@click.option("--all", "everything", is_flag=True, help="All unknown mails, if no other option is given.")
@click.option("--dry-run", is_flag=True, help="Only count the mails, and show some.")
@click.option("--yes", is_flag=True, help="Don't ask for confirmation.")
@click.pass_obj
def mail_resolve(
    app: App,
    /,
    jobs: tuple[str, ...],
    sent: bool,
    not_sent: bool,
    everything: bool,
    dry_run: bool,
    yes: bool,
    **given: Any,
) -> int:
    """Record whether unknown mails were sent.

    Their jobs run again: they send what was not sent, and finish. Exit with 1 if a mail is left as it was.
    """
    from packmule.jobs.email.ledger.acts import resolve
    from packmule.jobs.email.ledger.reader import all_that_fit
    from packmule.observe.audit import whoami

    if sent == not_sent:
        raise click.UsageError("give --sent or --not-sent")
    is_filtered = any(value is not None for value in given.values())
    if sum((bool(jobs), is_filtered, everything)) != 1:
        raise click.UsageError("name the jobs, filter the mails, or give --all")
    found: list[Entry] = []
    for job in jobs or (None,):
        found += all_that_fit(app.client, _wanted(("unknown",), given | ({"job": job} if job else {})))
    if not found:
        say("none of these mails is unknown")
        return int(bool(jobs))
    if dry_run:
        say(f"{_mails(len(found))} would be resolved{_examples(found)}")
        return 0
    if not jobs and not yes:
        done = "recorded as sent" if sent else "sent again"
        click.confirm(f"{_mails(len(found))} will be {done}{_examples(found)}. Continue?", abort=True)
    audited(lambda: {"sent": sent, "count": len(found)})
    ended = resolve(app.client, found, was_sent=sent, who=whoami(), keep=app.settings.mail_keep)
    again = len(ended.jobs)
    say(f"{_mails(ended.done)} resolved, {again:,} {'job runs' if again == 1 else 'jobs run'} again")
    for error in (*ended.refused[:10], *ended.left[:10]):
        complain(f"{error}")
    return int(bool(ended.refused or ended.left))


def _wanted(states: Sequence[str], given: dict[str, Any]) -> MailFilter:
    from packmule.jobs.email.ledger.reader import MailFilter
    from packmule.jobs.email.message.addresses import parse
    from packmule.jobs.email.outcome import State

    if given.get("address") is not None:
        given = {**given, "address": parse(given["address"]).spec}
    return MailFilter([State(each) for each in states], **given)


def _rows(found: Sequence[Entry]) -> list[tuple[Any, ...]]:
    from packmule.terminal import show

    return [
        (
            each.recipient,
            each.state,
            show.ago(each.changed),
            show.ago(each.due) if each.due else "-",
            each.job,
            each.reply,
        )
        for each in found
    ]


def _mails(count: int) -> str:
    return f"{count:,} {'mail' if count == 1 else 'mails'}"


def _examples(found: Sequence[Entry]) -> str:
    from packmule.plain_text import plain

    shown = ", ".join(plain(each.recipient) for each in found[:3])
    return f": {shown}{', ...' if len(found) > 3 else ''}" if found else ""  # noqa: PLR2004
