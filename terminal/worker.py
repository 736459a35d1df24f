"""`packmule worker`: a pool of worker processes, and in development a mail catcher."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import click

from packmule.terminal.app import App
from packmule.terminal.audit import Audited
from packmule.terminal.health import answering, health_option
from packmule.terminal.parameters import Duration, Size, Span, complete_queues, json_option, verbosity
from packmule.terminal.reloading import RELOAD_HELP, run_reloading
from packmule.terminal.say import complain, say, say_lines
from packmule.terminal.scheduler import run_scheduler


@click.group(invoke_without_command=True)
@click.option(
    "-q",
    "--queue",
    "queues",
    multiple=True,
    metavar="NAME[:WEIGHT]",
    shell_complete=complete_queues,
    help="Serve this queue; can be repeated. Earlier queues go first, or with weights (-q high:5,low:1) each "
    "gets its share.  [default: PACKMULE_QUEUES, in their order]",
)
@click.option(
    "--processes", type=click.IntRange(min=1), help="Run this many processes.  [default: PACKMULE_PROCESSES]"
)
@click.option(
    "--threads",
    type=click.IntRange(min=1, max=1000),
    default=1,
    show_default=True,
    help="Run this many functions at once per process; above 1 for I/O-bound jobs.",
)
@click.option(
    "--tasks",
    type=click.IntRange(min=1, max=10_000),
    default=100,
    show_default=True,
    help="Run this many async functions at once per process.",
)
@click.option("--autoscale", type=Span(), metavar="MIN:MAX", help="Run as many processes as the queues need.")
@click.option("--max-jobs", type=click.IntRange(min=1), help="Replace a process after this many jobs.")
@click.option(
    "--max-memory", type=Size(), help="Replace a process that uses more memory than this: 300M, 2G."
)
@click.option(
    "--grace", type=Duration(), help="Time for running jobs to end after SIGTERM.  [default: PACKMULE_GRACE]"
)
@click.option("--burst", is_flag=True, help="Exit when the queues are empty.")
@click.option("--no-scheduler", is_flag=True, help="Run no scheduler beside the processes.")
@click.option("--reload", is_flag=True, help=RELOAD_HELP)
@health_option
@verbosity("--quiet")
@click.pass_context
def worker(
    context: click.Context,
    /,
    queues: tuple[str, ...],
    processes: int | None,
    grace: float | None,
    autoscale: tuple[int, int] | None,
    no_scheduler: bool,
    reload: bool,
    health: str | None,
    verbose: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Run a pool of worker processes until SIGTERM, which drains it.

    Exit with 1 if a job outlived the grace period; it runs again. The commands control one process of a pool,
    by its name in `packmule status`.
    """
    if context.invoked_subcommand:
        return 0
    app: App = context.obj
    if reload:
        return run_reloading(app)
    from packmule.jobs import said
    from packmule.jobs.client import known_queue
    from packmule.jobs.host_shares import Shares
    from packmule.terminal import logs
    from packmule.terminal.banner import show_banner
    from packmule.worker import order
    from packmule.worker.options import WorkerOptions
    from packmule.worker.pool.pool import Pool

    logs.begin(app.settings, verbose, quiet)
    logs.let_through(app.settings.job_log_level)
    try:
        names = order.parse(queues or app.settings.queues)
    except order.InvalidWeight as error:
        raise click.UsageError(str(error)) from None
    for name in names:
        known_queue(name, app.settings.queues)
    app.load_jobs()
    with answering(app, health) as vitals:
        if not options["burst"]:
            app.await_server()
        app.produce()
        companions: dict[str, Callable[[], None]] = {}
        mail_urls = app.settings.mail_urls
        if not mail_urls and app.settings.environment == "development":
            mail_urls = _catch_mail(app, companions)
        app.provide(mail_urls)
        if not no_scheduler:
            companions["scheduler"] = lambda: run_scheduler(app)
        settled = WorkerOptions(
            max_result_bytes=app.settings.max_result_bytes,
            isolated=Shares.of_pool(app.settings.isolated) if app.settings.isolated else None,
            unknown_for=app.settings.unknown_for,
            job_log_level=said.LEVELS.get(app.settings.job_log_level, said.OFF),
            webhook_allow=app.settings.webhook_allow,
            machine=app.settings.machine,
            release=app.settings.release,
            **options,
        )
        processes = processes or app.settings.processes
        show_banner(app, names, f"{autoscale[0]} to {autoscale[1]}" if autoscale else f"{processes}", settled)
        return Pool(
            app.connect,
            queues or app.settings.queues,
            processes,
            settled,
            grace=app.settings.grace if grace is None else grace,
            companions=companions,
            autoscale=autoscale,
            lock_nodes=app.lock_nodes,
            vitals=vitals,
        ).run()


def _catch_mail(app: App, companions: dict[str, Callable[[], None]]) -> tuple[str, ...]:
    """Let a companion process catch mails in development, and return the URL of its SMTP server.

    Without the extra `email` nobody sends any.
    """
    import socket
    from importlib.util import find_spec

    if find_spec("aiosmtpd") is None:
        return ()

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
    return (f"smtp://127.0.0.1:{port}",)


@worker.command("quiet", cls=Audited)
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.pass_obj
def worker_quiet(app: App, names: tuple[str, ...]) -> None:
    """Stop workers from taking jobs until they are resumed.

    Jobs that they already hold still run.
    """
    from packmule.jobs.cluster import quiet

    for name in names:
        say(f"{name} {'is quiet' if quiet(app.client, name) else 'was already quiet'}")


@worker.command("resume", cls=Audited)
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.pass_obj
def worker_resume(app: App, names: tuple[str, ...]) -> None:
    """Let quiet workers take jobs again."""
    from packmule.jobs.cluster import resume

    for name in names:
        say(f"{name} {'takes jobs again' if resume(app.client, name) else 'was not quiet'}")


@worker.command("stack", cls=Audited)
@click.argument("name")
@json_option
@click.pass_obj
def worker_stack(app: App, name: str, json: bool) -> None:
    """Show the stacks of a worker's threads.

    The worker and its forked processes write their stacks, even while a job blocks them. Jobs go on. Exit
    with 1 if the worker doesn't answer.
    """
    from packmule.jobs.stacks import ask
    from packmule.terminal import show

    found = ask(app.client, name)
    if json:
        show.as_json(found)
        return
    say_lines(found.text)
    say(f"It was running: {', '.join(found.jobs) or 'nothing'}")
    if not found.is_whole:
        complain("Some stacks are missing.")


@worker.command("stop", cls=Audited)
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.pass_obj
def worker_stop(app: App, names: tuple[str, ...]) -> None:
    """Stop workers once their running jobs have ended.

    The pool starts a replacement for each.
    """
    from packmule.jobs.cluster import stop

    for name in names:
        stop(app.client, name)
        say(f"{name} was told to stop")
