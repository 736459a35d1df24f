"""`packmule email bulk` and `packmule email results`: how far bulk sends are, and what became of whom."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from packmule import units
from packmule.terminal.app import App
from packmule.terminal.parameters import BatchId, json_option
from packmule.terminal.waiting import longest_wait, wait_options

if TYPE_CHECKING:
    from packmule.jobs.email.bulk.counts import Progress

COLUMNS = ("bulk send", "list", "state", "total", "sent", "deferred", "refused", "suppressed", "unknown")


@click.command("bulk")
@click.argument("id", required=False, type=BatchId())
@partial(wait_options, help="Show its counts until it has ended.", goes_on="the send goes on")
@click.option(
    "--limit", type=click.IntRange(1, 100), default=20, show_default=True, help="List at most this many."
)
@json_option
@click.pass_obj
def email_bulk(app: App, id: str | None, wait: bool, limit: int, json: bool) -> int:
    """List bulk sends, or show the progress of one.

    With --wait, exit with 1 unless all of its jobs finished and no mail is unknown. Its id is also that of
    its batch: use packmule batch to pause, resume or cancel it.
    """
    from packmule.jobs.email.bulk.counts import latest, progress_of
    from packmule.terminal import show

    if id is None and wait:
        raise click.UsageError("--wait is for one bulk send: give its id")
    if id is None:
        found = latest(app.client, limit)
        if json:
            show.as_json(found)
        else:
            show.table(COLUMNS, [*map(_row, found)], "no bulk sends", shorten="list", ids="bulk send")
        return 0
    if wait:
        from packmule.terminal.bulk import follow_bulk

        return follow_bulk(app, id, json, longest_wait())
    one = progress_of(app.client, id)
    show.as_json(one) if json else _show(one)
    return 0


@click.command("results")
@click.argument("id", type=BatchId())
@click.option("--json", "json", is_flag=True, help="Print one JSON object per line instead of CSV.")
@click.pass_obj
def email_results(app: App, id: str, json: bool) -> None:
    """Print the outcome for each recipient of a bulk send.

    The output is CSV in the order of the list.
    """
    from packmule.jobs.email.bulk.results import as_csv, results_of
    from packmule.terminal import show
    from packmule.terminal.say import say_lines

    found = results_of(app.client, id)
    if json:
        for each in found:
            show.as_json(each)
    else:
        for text in as_csv(found):
            say_lines(text, ends=False)


def _row(each: Progress) -> tuple[object, ...]:
    return (
        each.id, each.source, each.state, each.total, each.sent, each.deferred, each.refused,
        each.suppressed, each.unknown,
    )  # fmt: skip


def _show(found: Progress) -> None:
    from packmule.terminal import show

    left = units.span(found.seconds_left) if found.seconds_left is not None else None
    show.facts(
        {
            "bulk send": found.id,
            "state": found.state,
            "key": found.key,
            "list": found.source,
            "recipients": found.recipients,
            "subject": found.subject,
            "template": found.template,
            "mails of the key": found.total,
            "sent": found.sent,
            "deferred": found.deferred or None,
            "refused": found.refused or None,
            "suppressed": found.suppressed or None,
            "unknown": found.unknown or None,
            "being sent": found.sending or None,
            "not sent" if found.state == "ended" else "waiting": found.waiting or None,
            "rate": f"{found.rate:,.1f}/s",
            "time left": left,
        }
    )
