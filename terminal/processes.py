"""The commands that stay: worker, scheduler, dashboard, all of them at once, and the demo."""

from __future__ import annotations

import logging
import shlex
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from packmule.terminal.app import App
from packmule.terminal.parameters import Duration, Size, Span, complete_queues

SCHEDULER_TIMEOUT = 5.0
"""Seconds that an answer may take, so that a frozen server doesn't keep a scheduler from ending."""


@click.command()
@click.pass_obj
def demo(app: App) -> None:
    """Run a real e-mail, image and file job on shipped samples."""
    from packmule.terminal.demo import QUEUE
    from packmule.terminal.demo import demo as run

    app.settings = replace(app.settings, redis_url=None, smtp_url=None, storage=None, queues=(QUEUE,))
    app.produce()
    run(app.client, app.storage, app.settings)


@click.command()
@click.option("--lock-nodes", type=click.Choice(["1", "3", "5"]), help="Start so many lock nodes as well.")
@click.pass_obj
def up(app: App, lock_nodes: str | None) -> int:
    """Run the whole Procfile in this terminal; Ctrl-C drains."""
    from packmule.terminal.up import start_lock_nodes
    from packmule.terminal.up import up as run

    if lock_nodes and app.settings.lock_urls:
        raise click.UsageError("--lock-nodes starts servers of its own: unset PACKMULE_LOCK_URLS")
    _ = app.client  # a server that can't be reached is told once, before anything starts
    urls = start_lock_nodes(app.settings.data_dir, int(lock_nodes or 0), app.closing)
    if urls:
        click.echo(
            f"For commands in other terminals: export PACKMULE_LOCK_URLS={shlex.quote(','.join(urls))}"
        )
    return run(app.settings.grace, urls, has_webhooks=app.settings.webhooks is not None)


@click.command()
@click.option(
    "-q",
    "--queue",
    "queues",
    multiple=True,
    metavar="NAME[:WEIGHT]",
    shell_complete=complete_queues,
    help="A queue to serve: the first named goes first, or with weights (-q high:5,low:1) each in its share "
    "of the turns.  [default: PACKMULE_QUEUES, in their order]",
)
@click.option("--processes", type=click.IntRange(min=1), help="How many.  [default: PACKMULE_PROCESSES]")
@click.option(
    "--threads",
    type=click.IntRange(min=1, max=1000),
    default=1,
    show_default=True,
    help="How many functions a process performs at once: more than one for jobs that wait.",
)
@click.option(
    "--tasks",
    type=click.IntRange(min=1, max=10_000),
    default=100,
    show_default=True,
    help="How many async functions a process performs at once.",
)
@click.option("--autoscale", type=Span(), metavar="MIN:MAX", help="As many processes as the queues need.")
@click.option("--max-jobs", type=click.IntRange(min=1), help="Replace a process after so many jobs.")
@click.option("--max-memory", type=Size(), help="Replace a process that uses so much: 300M, 2G.")
@click.option(
    "--grace", type=Duration(), help="What running jobs have on SIGTERM.  [default: PACKMULE_GRACE]"
)
@click.option("--burst", is_flag=True, help="Leave when the queues are empty.")
@click.option("--no-scheduler", is_flag=True, help="Leave delayed jobs and retries to another scheduler.")
@click.pass_obj
def worker(
    app: App,
    /,
    queues: tuple[str, ...],
    processes: int | None,
    grace: float | None,
    no_scheduler: bool,
    **options: Any,
) -> int:
    """Run a pool of worker processes. SIGTERM drains it."""
    from packmule.jobs.client import known_queue
    from packmule.terminal.logs import log_to_stderr
    from packmule.worker import order
    from packmule.worker.pool.pool import Pool

    log_to_stderr(app.settings.log_format)
    try:
        names = order.parse(queues or app.settings.queues)
    except order.InvalidWeight as error:
        raise click.UsageError(str(error)) from None
    for name in names:
        known_queue(name, app.settings.queues)
    app.load_jobs()
    app.produce()
    companions: dict[str, Callable[[], None]] = {}
    smtp_url = app.settings.smtp_url
    if smtp_url is None and app.settings.environment == "development":
        smtp_url = _catch_mail(app, companions)
    app.provide(smtp_url)
    if not no_scheduler:
        companions["scheduler"] = lambda: _schedule(app)
    return Pool(
        app.connect,
        queues or app.settings.queues,
        processes or app.settings.processes,
        grace=app.settings.grace if grace is None else grace,
        companions=companions,
        max_result_bytes=app.settings.max_result_bytes,
        lock_nodes=app.lock_nodes,
        **options,
    ).run()


@click.command()
@click.option(
    "--schedules",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A TOML file.  [default: PACKMULE_SCHEDULES]",
)
@click.pass_obj
def scheduler(app: App, schedules: Path | None) -> None:
    """Run a dedicated scheduler; any number may run, one leads."""
    from packmule.scheduler.schedules.schedule_file import read_file
    from packmule.terminal.logs import log_to_stderr

    log_to_stderr(app.settings.log_format)
    if schedules is not None:
        read_file(schedules)  # of an option the mistake is told at once; a deployed file may become better
        app.settings = replace(app.settings, schedules=schedules)
    app.load_jobs()  # who lacks a module would lead, and keep others from what needs it
    _schedule(app)


@click.command()
@click.option("--host", help="Address to listen on.  [default: PACKMULE_HOST, 127.0.0.1]")
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Port to listen on.  [default: PACKMULE_PORT or PORT, 9181]"
)
@click.pass_obj
def dashboard(app: App, host: str | None, port: int | None) -> None:
    """Serve rq-dashboard. It has no login of its own yet: keep it on this machine."""
    import waitress

    from packmule.coordination.redis.embedded_server import EmbeddedServer
    from packmule.dashboard import create_app

    app.client.ping()  # the connection stays open, and so does an embedded server
    url = app.settings.redis_url or EmbeddedServer(app.settings.data_dir).url
    host, port = host or app.settings.host, port or app.settings.port
    try:
        server = waitress.create_server(create_app(app.client, url), host=host, port=port)
    except (OSError, ValueError) as error:
        raise click.UsageError(
            f"can't listen on {host}:{port} ({error}): choose another with --host or --port"
        ) from None
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(0))
    click.echo(f"The dashboard is on http://{host}:{port}", err=True)
    server.run()


def _schedule(app: App) -> None:
    from packmule.jobs.client import Producer
    from packmule.scheduler.scheduler import Scheduler
    from packmule.scheduler.schedules.periodic_enqueuer import PeriodicEnqueuer

    settings = app.settings
    client = app.connect(SCHEDULER_TIMEOUT)
    producer = Producer(client, settings.queues, settings.max_job_bytes)
    enqueuer = PeriodicEnqueuer(client, producer, settings.schedules)
    Scheduler(client, app.lock_nodes(), enqueuer, high_water=settings.memory_high_water).run()


def _catch_mail(app: App, companions: dict[str, Callable[[], None]]) -> str:
    """Let a companion process catch the mails of development, and return the URL at which it will."""
    import socket

    from packmule.jobs.email.catcher import Catcher

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    storage = app.storage

    def catch() -> None:
        import threading

        stopped = threading.Event()
        signal.signal(signal.SIGTERM, lambda signum, frame: stopped.set())
        with Catcher(storage, port=port):
            stopped.wait()

    companions["mail-catcher"] = catch
    logging.getLogger("packmule").info(
        "no PACKMULE_SMTP_URL: mails are caught and filed under %s", storage.locate("mail")
    )
    return f"smtp://127.0.0.1:{port}"
