"""`packmule scheduler`: a process that does what happens once in the cluster."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from packmule.config import secret_if_set
from packmule.terminal.app import App
from packmule.terminal.health import answering, health_option
from packmule.terminal.parameters import verbosity

if TYPE_CHECKING:
    from packmule.config import Settings
    from packmule.jobs.schedule import Schedule
    from packmule.observe.vitals import Vitals


@click.command()
@click.option(
    "--schedules",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A TOML file of schedules.  [default: PACKMULE_SCHEDULES]",
)
@health_option
@verbosity("-q", "--quiet")
@click.pass_obj
def scheduler(app: App, schedules: Path | None, health: str | None, verbose: bool, quiet: bool) -> None:
    """Run a dedicated scheduler; any number may run, and one leads."""
    from packmule.jobs.schedule_file import read_file
    from packmule.terminal import logs

    logs.begin(app.settings, verbose, quiet)
    if schedules is not None:
        read_file(schedules)  # a mistake ends the command at once; a deployed file may be corrected later
        app.settings = replace(app.settings, schedules=schedules)
    app.load_jobs()  # a leader that lacks a module could not enqueue its jobs
    with answering(app, health) as vitals:
        run_scheduler(app, vitals)


def run_scheduler(app: App, vitals: Vitals | None = None) -> None:
    from packmule.coordination.redis.waiting import connect_when_up
    from packmule.scheduler.scheduler import Scheduler
    from packmule.scheduler.schedules.periodic_enqueuer import PeriodicEnqueuer

    settings = app.settings
    _remove_leftovers(app)
    client = connect_when_up(app.connect)
    enqueuer = PeriodicEnqueuer(app.jobs_on(client), settings.schedules, _of_settings(settings))
    Scheduler(
        client,
        app.lock_nodes(),
        enqueuer,
        high_water=settings.memory_high_water,
        index_jobs=settings.index_jobs,
        vitals=vitals,
    ).run()


def _remove_leftovers(app: App) -> None:
    """Let this process remove what dead ones left on its host."""
    from packmule.jobs.storage import StorageError
    from packmule.jobs.storage.temporary import Remover

    with suppress(StorageError):  # which is for those that use it
        Remover(app.storage.remove_unfinished).soon()


def _of_settings(settings: Settings) -> list[Schedule]:
    """The schedules that settings ask for."""
    found, queue = [], settings.queues[-1]
    if settings.bounces:
        from packmule.jobs.email.suppression.collecting import collecting

        found.append(collecting(queue))
    if secret_if_set("images"):
        from packmule.jobs.image.serving.prune import pruning

        found.append(pruning(queue, settings.images_keep, settings.images_bytes))
    if settings.files_keep or settings.files_bytes:
        from packmule.jobs.retention.scheduled import keeping

        found.append(keeping(queue, settings.files_keep, settings.files_bytes))
    return found
