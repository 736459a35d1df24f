"""`packmule job`: show, list, cancel, retry and wait for jobs, and what they say."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from packmule.terminal.app import App
from packmule.terminal.audit import Audited
from packmule.terminal.job_acts import job_cancel, job_copy, job_delete, job_retry, job_run
from packmule.terminal.job_filters import filter_options, job_filter
from packmule.terminal.parameters import Duration, JobId, json_option
from packmule.terminal.said import as_text, job_logs, job_output
from packmule.terminal.say import complain, say

if TYPE_CHECKING:
    from packmule.jobs.job_filter import JobFilter
    from packmule.jobs.reader import JobInfo

LONGEST_LOOK = 5.0
"""Seconds after which a list shows what it has found so far."""

LAST_LINES = 5
"""Lines of a failed job's log that are shown with it."""


@click.group()
def job() -> None:
    """Show, list, cancel and retry jobs, and print their logs and output."""


job.add_command(job_logs)
job.add_command(job_output)


@job.command("show")
@click.argument("id", type=JobId())
@click.option("--traceback", is_flag=True, help="Show the whole traceback of a failure.")
@json_option
@click.pass_obj
def job_show(app: App, id: str, traceback: bool, json: bool) -> None:
    """Show one job.

    Print its arguments, progress, result or error, steps, what it waits for, and a failed job's last log
    lines.
    """
    from packmule.jobs import reader, watch
    from packmule.observe.blocked import wait_of
    from packmule.observe.steps import steps_of
    from packmule.observe.waits import due, of_deferred, of_queued, of_unknown
    from packmule.terminal import show, show_job, show_steps

    record = reader.read(app.client, id)
    wait, steps, logs = wait_of(app.client, id), steps_of(app.client, id), watch.logs(app.client, id)
    due_at = due(app.client, [record]).get(id)
    if json:
        more = {"wait": wait, "steps": [each._asdict() for each in steps], "lines": len(logs)}
        show.as_json(_facts(record, due_at) | more)
        return
    _load_for([record], app)
    last = logs[-LAST_LINES:] if record.status == "failed" else []
    waits_for = of_queued(wait) if wait else show_steps.waits_for(record) or of_deferred(app.client, record)
    waits_for = waits_for or of_unknown(app.client, record)
    show_job.job(record, traceback, waits_for, len(logs), map(as_text, last), due_at)
    show_steps.steps(steps)


@job.command("list")
@filter_options
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="At most this many jobs."
)
@click.option("--after", metavar="CURSOR", help="Continue an earlier list, which printed this cursor.")
@json_option
@click.pass_obj
def job_list(app: App, /, limit: int, after: str | None, json: bool, **given: Any) -> None:
    """List jobs, the newest first.

    A job must match all options. Ended jobs are found as far back as the index goes.
    """
    from packmule.observe.waits import due
    from packmule.terminal import show, show_job
    from packmule.terminal.show_steps import waits_for

    jobs, cursor, back_to = _search(app, job_filter(app, **given), limit, after)
    due_at = due(app.client, jobs)
    if json:
        show.as_json([_facts(each, due_at.get(each.id)) for each in jobs])
        return
    _load_for(jobs, app)
    has_waits = any(each.waits for each in jobs)
    columns = ["job", "status", "queue", "when", "took", *(["waits for"] if has_waits else []), "calls"]
    rows = [
        (each.id, show_job.status(each.status), each.queue)
        + (show.ago(due_at.get(each.id) or _since(each)), show_job.pace(each))
        + ((waits_for(each) or "",) if has_waits else ())
        + (show_job.called(each),)
        for each in jobs
    ]
    show.table(columns, rows, "no jobs", shorten="calls", ids="job")
    if cursor:
        complain(f"searched back to {show.moment(back_to)}; for more: --after {cursor}")


def _facts(record: JobInfo, due_at: float | None) -> dict[str, Any]:
    """A job as JSON has it."""
    from packmule.jobs.wire import time_text

    return dataclasses.asdict(record) | {"due_at": time_text(due_at) if due_at else None}


def _load_for(jobs: Sequence[JobInfo], app: App) -> None:
    """Import the user's jobs if one of these has positional arguments: their names say which are secrets."""
    if any(each.args for each in jobs):
        app.load_if_possible()


def _search(
    app: App, wanted: JobFilter, limit: int, after: str | None
) -> tuple[list[JobInfo], str | None, float | None]:
    """The jobs of a page or, if it is short, of some; the cursor behind, and how far back that is."""
    from packmule.jobs.search import search

    jobs: list[JobInfo] = []
    ends_at = time.monotonic() + LONGEST_LOOK
    while True:
        page = search(app.client, wanted, limit - len(jobs), after, app.queues())
        jobs += page.jobs
        after = page.cursor
        if after is None or len(jobs) >= limit or time.monotonic() > ends_at:
            return jobs, after, page.back_to


def _since(record: JobInfo) -> str | None:
    """When the job began if it runs, or else when it or its last attempt ended, or when it was made."""
    return (record.started_at if record.status == "started" else record.ended_at) or record.created_at


@job.command("signal", cls=Audited)
@click.argument("id", type=JobId())
@click.argument("name")
@click.option("--data", metavar="JSON", default="null", help="Send this JSON; null by default.")
@click.pass_obj
def job_signal(app: App, id: str, name: str, data: str) -> None:
    """Send a signal to a job that waits for it, or will wait.

    The signal `step:NAME` settles a step whose outcome is unknown: `--data '"again"'` runs it again, and
    `--data '{"done": RESULT}'` uses RESULT as its result.
    """
    import msgspec

    from packmule.jobs.signaling import signal

    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise click.BadParameter(f"it is not JSON: {error}", param_hint="--data") from None
    say(f"{id} {signal(app.client, id, name, value)}")


@job.command("wait")
@click.argument("id", type=JobId())
@click.option("--timeout", type=Duration(), help="Give up after this long, with exit code 1.")
@json_option
@click.pass_obj
def job_wait(app: App, id: str, timeout: float | None, json: bool) -> int:
    """Wait until a job has ended and print its result.

    Exit with 1 if it failed.
    """
    from packmule.terminal.follow import follow_one

    return follow_one(app, id, "job", json, timeout)


for each in (job_cancel, job_retry, job_delete, job_run, job_copy):
    job.add_command(each)
