"""The options that every `packmule enqueue` command has."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from packmule.terminal.parameters import Duration, F, Instant, Lifetime, complete_queues, with_options
from packmule.terminal.say import complain
from packmule.terminal.waiting import wait_options

if TYPE_CHECKING:
    from packmule.jobs.options import Options


def enqueue_options(command: F) -> F:
    """The options that every `packmule enqueue` command has."""
    options = [
        click.option(
            "--queue",
            metavar="NAME",
            shell_complete=complete_queues,
            help="Enqueue it on this queue.  [default: the job's own queue]",
        ),
        click.option("--in", "delay", type=Duration(), help="Run it after this delay: 90s, 5m, 1h30m."),
        click.option(
            "--at",
            type=Instant(),
            callback=_tell_past,
            help="Run it at this time, in this machine's zone: 2026-12-01T08:00.",
        ),
        click.option("--timeout", type=Duration(), help="Stop it if it runs longer than this."),
        click.option("--expires", type=Duration(), help="Fail it if it has not started within this time."),
        click.option("--result-ttl", type=Lifetime(), help="Keep its result this long: 1h, 7d, forever."),
        click.option("--retries", type=click.IntRange(min=0), help="Retry it this many times if it fails."),
        click.option("--description", help="Show this text on the dashboard."),
        click.option("--job-id", help="Give it this id; do nothing if a job of that id exists."),
        click.option(
            "--unique", is_flag=True, default=None, help="Do nothing while an equal job is pending."
        ),
        click.option("--unique-key", metavar="TEXT", help="Like --unique, but compare this: '{account_id}'."),
        click.option("--unique-ttl", type=Duration(), help="Stay unique for this long instead."),
        click.option("--throttle", type=Duration(), help="Enqueue at most one per interval; the first wins."),
        click.option("--debounce", type=Duration(), help="Delay it; an equal call restarts the delay."),
        click.option("--debounce-limit", type=Duration(), help="Delay a debounced job at most this long."),
        click.option("--at-front", is_flag=True, default=None, help="Put it at the front of its queue."),
        click.option(
            "--priority",
            type=click.IntRange(-100, 100),
            help="Run it before jobs of its queue with a lower one.  [default: 0]",
        ),
        click.option("--durable", is_flag=True, default=None, help="Wait until the server has it on disk."),
    ]
    printed = click.option(
        "--json", "json", is_flag=True, help="With --wait: print the job as one JSON object."
    )
    waiting = wait_options(printed(command), "Show progress and result; exit 1 if it fails.")
    return with_options(waiting, options)


def _tell_past(ctx: click.Context, param: click.Parameter, value: datetime | None) -> datetime | None:
    """Say that a time has passed; a script that is late wants its job all the same."""
    if value is not None and value.timestamp() < time.time():
        complain(f"--at {value:%Y-%m-%dT%H:%M} has passed: the job runs now")
    return value


def calls_of(sources: tuple[str, ...], call: dict[str, Any]) -> list[dict[str, Any]]:
    """The call for each source. Raises `click.UsageError` if several would write to one place."""
    if "out" in call and len(sources) > 1:
        raise click.UsageError("--out is the path of one output: omit it for several sources")
    return [{**call, "source": source} for source in sources]


def split(given: dict[str, Any]) -> tuple[dict[str, Any], Options]:
    """A command's values, split into the job's arguments and the options of the enqueue."""
    from packmule.jobs.options import Options

    names = {
        "queue",
        "delay",
        "at",
        "timeout",
        "result_ttl",
        "retries",
        "description",
        "job_id",
        "at_front",
        "priority",
        "durable",
        "expires",
        "unique",
        "unique_ttl",
        "throttle",
        "debounce",
        "debounce_limit",
    }
    key = given.pop("unique_key")
    if key is not None and given["unique"]:
        raise click.UsageError("give --unique or --unique-key, not both")
    given["unique"] = given["unique"] if key is None else key
    options = Options(**{name: value for name, value in given.items() if name in names})
    return {name: value for name, value in given.items() if name not in names and value is not None}, options
