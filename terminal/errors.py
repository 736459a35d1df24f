"""`packmule errors`: list, show, resolve, ignore and retry errors, failures of the same cause."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from packmule.plain_text import plain
from packmule.terminal.app import App
from packmule.terminal.audit import Audited
from packmule.terminal.parameters import json_option
from packmule.terminal.say import complain, say

if TYPE_CHECKING:
    from packmule.observe.errors import ErrorInfo, State

MOST_NAMED = 5
"""Jobs that `show` names; its JSON has all."""

HEIGHTS = "▁▂▃▄▅▆▇█"


@click.group()
def errors() -> None:
    """List, show, resolve, ignore and retry errors.

    An error groups failures with the same cause: the same job, class, code and text.
    """


@errors.command("list")
@click.option(
    "--state",
    type=click.Choice(["open", "resolved", "ignored", "all"]),
    default="open",
    show_default=True,
    help="List errors in this state.",
)
@click.option(
    "--limit", type=click.IntRange(1, 500), default=50, show_default=True, help="At most this many."
)
@json_option
@click.pass_obj
def errors_list(app: App, state: str, limit: int, json: bool) -> None:
    """List errors, most recently seen first.

    The bars show the last 24 hours.
    """
    from packmule.observe.errors import STATES, read_all
    from packmule.terminal import show

    found = read_all(app.client, STATES if state == "all" else (state,))
    if json:
        show.as_json([dataclasses.asdict(each) for each in found[:limit]])
        return
    rows = [
        (each.fingerprint, each.total, show.ago(each.last_at), bars(each.hours, 2), _said(each))
        for each in found[:limit]
    ]
    columns = ("error", "failures", "last", "24 hours", "what failed")
    show.table(columns, rows, "no errors" if state == "all" else f"no {state} errors")
    if len(found) > limit:
        show.out.print(f"the last {limit} of {len(found)} errors; --limit N shows more")


@errors.command("show")
@click.argument("fingerprint")
@json_option
@click.pass_obj
def errors_show(app: App, fingerprint: str, json: bool) -> None:
    """Show one error.

    Print its counts, where it was seen, the last jobs that failed with it, and a traceback.
    """
    from packmule.observe.errors import read
    from packmule.terminal import show

    error, traceback, jobs = read(app.client, fingerprint)
    if json:
        show.as_json({**dataclasses.asdict(error), "traceback": traceback, "jobs": jobs})
        return
    more = [f"and {len(jobs) - MOST_NAMED:,} others"] if len(jobs) > MOST_NAMED else []
    show.facts(
        {
            "error": error.fingerprint,
            "type": error.type,
            "text": error.text,
            "job": error.job,
            "where": error.where,
            "state": error.state,
            "failures": error.total,
            "first": show.moment(error.first_at),
            "last": show.moment(error.last_at),
            "last 24 hours": f"{sum(error.hours[-24:]):,} {bars(error.hours[-24:], 1)}",
            "last 7 days": f"{sum(error.hours):,} {bars(error.hours, 24)}",
            "queues": ", ".join(error.queues),
            "releases": ", ".join(error.releases),
            "last job": error.last_job,
            "failed jobs": show.lines("\n".join([*map(plain, jobs[:MOST_NAMED]), *more])) if jobs else None,
            "traceback": show.lines(traceback.strip()) if traceback else None,
        }
    )


@errors.command("resolve", cls=Audited)
@click.argument("fingerprints", metavar="FINGERPRINT...", nargs=-1, required=True)
@click.pass_obj
def errors_resolve(app: App, fingerprints: tuple[str, ...]) -> int:
    """Mark errors as resolved.

    An error that occurs again reopens and emits the event error_again.
    """
    return _mark(app, fingerprints, "resolved")


@errors.command("ignore", cls=Audited)
@click.argument("fingerprints", metavar="FINGERPRINT...", nargs=-1, required=True)
@click.pass_obj
def errors_ignore(app: App, fingerprints: tuple[str, ...]) -> int:
    """Ignore errors: they are counted, and nobody is notified."""
    return _mark(app, fingerprints, "ignored")


@errors.command("reopen", cls=Audited)
@click.argument("fingerprints", metavar="FINGERPRINT...", nargs=-1, required=True)
@click.pass_obj
def errors_reopen(app: App, fingerprints: tuple[str, ...]) -> int:
    """Reopen errors that were resolved or ignored."""
    return _mark(app, fingerprints, "open")


@errors.command("retry", cls=Audited)
@click.argument("fingerprint")
@json_option
@click.pass_obj
def errors_retry(app: App, fingerprint: str, json: bool) -> int:
    """Retry the last jobs that failed with an error, up to 1,000.

    Exit with 1 if a job can't run again now.
    """
    from packmule.observe.errors import retry
    from packmule.terminal import show

    retried = retry(app.client, fingerprint)
    if json:
        show.as_json(retried._asdict())
        return 1 if retried.refused else 0
    for reason in retried.refused.values():
        complain(reason)
    count = len(retried.jobs)
    say(f"{fingerprint}: {count:,} {'job' if count == 1 else 'jobs'} enqueued again")
    return 1 if retried.refused else 0


def bars(counts: Sequence[int], width: int) -> str:
    """Counts as bars, each of `width` counts together; a dot where nothing is to be seen.

    >>> bars([0, 0, 1, 0, 4, 4], 2)
    '·▁█'
    """
    sums = [sum(counts[at : at + width]) for at in range(0, len(counts), width)]
    most = max(sums)
    return "".join("·" if not each else HEIGHTS[(each * len(HEIGHTS) - 1) // most] for each in sums)


def _said(error: ErrorInfo) -> str:
    said = f"{error.type}: {error.text}" if error.text else error.type
    state = "" if error.state == "open" else f" ({error.state})"
    return f"{error.job or 'a job'}: {said}{state}"


def _mark(app: App, fingerprints: Sequence[str], state: State) -> int:
    from packmule.observe.errors import NoSuchError, mark

    code = 0
    for each in fingerprints:
        try:
            before = mark(app.client, each, state)
        except NoSuchError as error:  # the others are marked all the same
            complain(str(error))
            code = error.exit_code
        else:
            say(f"{each} {'was already ' + state if before == state else state}")
    return code
