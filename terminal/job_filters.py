"""The options by which commands say which jobs are meant."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from packmule.terminal.app import App
from packmule.terminal.parameters import F, Moment, assignments, complete_queues, with_options

if TYPE_CHECKING:
    from packmule.jobs.job_filter import JobFilter

STATUSES = ("queued", "started", "scheduled", "finished", "failed", "stopped", "deferred", "canceled")


def filter_options(command: F) -> F:
    """The options of a filter, which `job_filter` takes by their names."""
    options: list[Callable[[F], F]] = [
        click.option(
            "--name", metavar="FUNCTION", help="Only calls of this function; its last part is enough."
        ),
        click.option(
            "--queue", metavar="NAME", shell_complete=complete_queues, help="Only jobs of this queue."
        ),
        click.option("--status", type=click.Choice(STATUSES), help="Only jobs with this status."),
        click.option(
            "--error",
            metavar="CLASS",
            help="Only jobs that failed with this error class, or with this in the error's text.",
        ),
        click.option(
            "--since",
            type=Moment(),
            help="Only jobs that were created, began or ended since then: 10m, 2026-12-01T08:00.",
        ),
        click.option(
            "--until", type=Moment(), help="Only jobs that were created, began or ended until then."
        ),
        click.option(
            "--arg",
            "args",
            multiple=True,
            metavar="NAME=VALUE",
            help="Only jobs with this argument; can be repeated.",
        ),
        click.option("--id", "id_prefix", metavar="PREFIX", help="Only jobs whose id begins with this."),
        click.option(
            "--fingerprint",
            metavar="ERROR",
            help="Only jobs that failed with this error.",
        ),
    ]
    return with_options(command, options)


def job_filter(
    app: App,
    *,
    name: str | None,
    queue: str | None,
    status: str | None,
    error: str | None,
    since: float | None,
    until: float | None,
    args: tuple[str, ...],
    id_prefix: str | None,
    fingerprint: str | None,
) -> JobFilter:
    """The filter that the options make."""
    from packmule.jobs.client import known_queue
    from packmule.jobs.job_filter import JobFilter

    if queue is not None:
        known_queue(queue, app.queues())
    given = assignments("--arg", args)
    if given:
        app.load_jobs()  # for the names of arguments that are given by position
    return JobFilter(name, queue, status, error, since, until, given, id_prefix, fingerprint)
