"""`packmule scheduler`: a process that does what happens once in the cluster."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from packmule.terminal.app import App
from packmule.terminal.parameters import verbosity


@click.command()
@click.option(
    "--schedules",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A TOML file of schedules.  [default: PACKMULE_SCHEDULES]",
)
@verbosity("-q", "--quiet")
@click.pass_obj
def scheduler(app: App, schedules: Path | None, verbose: bool, quiet: bool) -> None:
    """Run a dedicated scheduler; any number may run, and one leads."""
    from packmule.jobs.schedule_file import read_file
    from packmule.terminal import logs

    logs.begin(app.settings, verbose, quiet)
    if schedules is not None:
        read_file(schedules)  # a mistake ends the command at once; a deployed file may be corrected later
        app.settings = replace(app.settings, schedules=schedules)
    app.load_jobs()  # a leader that lacks a module could not enqueue its jobs
    run_scheduler(app)


def run_scheduler(app: App) -> None:
    from packmule.coordination.redis.waiting import connect_when_up
    from packmule.scheduler.scheduler import Scheduler
    from packmule.scheduler.schedules.periodic_enqueuer import PeriodicEnqueuer

    settings = app.settings
    client = connect_when_up(app.connect)
    enqueuer = PeriodicEnqueuer(app.jobs_on(client), settings.schedules)
    Scheduler(
        client,
        app.lock_nodes(),
        enqueuer,
        high_water=settings.memory_high_water,
        index_jobs=settings.index_jobs,
    ).run()
