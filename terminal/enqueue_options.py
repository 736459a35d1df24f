"""The options that every `packmule enqueue` command has."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from packmule.terminal.parameters import Duration, Instant, Lifetime, complete_queues

if TYPE_CHECKING:
    from packmule.jobs.options import Options

F = TypeVar("F", bound=Callable[..., Any])


def enqueue_options(command: F) -> F:
    """The options that every `packmule enqueue` command has."""
    options = [
        click.option(
            "--queue", metavar="NAME", shell_complete=complete_queues, help="[default: the job's own]"
        ),
        click.option("--in", "delay", type=Duration(), help="Run it so long from now: 90s, 5m, 1h30m."),
        click.option("--at", type=Instant(), help="Run it at this time: 2026-12-01T08:00."),
        click.option("--timeout", type=Duration(), help="How long it may run."),
        click.option("--expires", type=Duration(), help="It fails if it can't start within so long."),
        click.option("--result-ttl", type=Lifetime(), help="How long its result is kept: 1h, 7d, forever."),
        click.option("--retries", type=click.IntRange(min=0), help="How often a failure is retried."),
        click.option("--description", help="What the dashboard shows."),
        click.option("--job-id", help="Its id; while a job of that id exists, nothing is enqueued."),
        click.option(
            "--unique", is_flag=True, default=None, help="Not while one of the same arguments is alive."
        ),
        click.option(
            "--unique-key", metavar="TEXT", help="As --unique, by the arguments named: '{account_id}'."
        ),
        click.option("--unique-ttl", type=Duration(), help="Unique for so long from now instead."),
        click.option("--throttle", type=Duration(), help="At most one in so long, the first wins."),
        click.option("--debounce", type=Duration(), help="Wait so long for calls that replace it."),
        click.option("--debounce-limit", type=Duration(), help="The longest that these may put it off."),
        click.option("--at-front", is_flag=True, default=None, help="Jump the queue."),
        click.option("--wait", is_flag=True, help="Show progress and result; exit 1 if it fails."),
        click.option("--json", "json", is_flag=True, help="With --wait: the job as one JSON object."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def split(given: dict[str, Any]) -> tuple[dict[str, Any], Options]:
    """A command's values parted into the job's arguments and the options of the enqueue."""
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
