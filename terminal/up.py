"""`packmule up`: the whole Procfile in one terminal, through honcho."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import click

from packmule.config import Settings, child_environment
from packmule.terminal.app import App
from packmule.terminal.reloading import RELOAD_HELP, Change, is_of_django, own_command, reloading
from packmule.terminal.say import complain, say
from packmule.terminal.surroundings import enter

PROCFILE = """\
worker: packmule worker
scheduler: packmule scheduler
web: packmule dashboard
"""
"""What runs if the working directory has no Procfile; the repository's Procfile is equal.

Platforms send requests to the process called `web`.

Under `manage.py packmule up`, the processes are those of `manage.py packmule`.
"""

SIGN_OFF_SECONDS = 5.0
POLL = 0.05
STOPPED_BY_US = {128 + signal.SIGINT, 128 + signal.SIGTERM}


@click.command()
@click.option("--lock-nodes", type=click.Choice(["1", "3", "5"]), help="Start this many lock nodes as well.")
@click.option("--reload/--no-reload", default=None, help=f"{RELOAD_HELP}  [default: reload in development]")
@click.pass_obj
def up(app: App, lock_nodes: str | None, reload: bool | None) -> int:
    """Run all processes of the Procfile in this terminal.

    Ctrl-C drains the workers and stops the other processes. A code change does the same, and then restarts
    them.
    """
    if lock_nodes and app.settings.lock_urls:
        raise click.UsageError("--lock-nodes starts its own servers: unset PACKMULE_LOCK_URLS")
    # A module or a server that is missing is reported once, before anything starts.
    app.load_jobs()
    _ = app.client
    urls = start_lock_nodes(app.settings.data_dir, int(lock_nodes or 0), app.closing)
    if urls:
        say(f"For commands in other terminals: export PACKMULE_LOCK_URLS={shlex.quote(','.join(urls))}")
    if app.settings.redis_url is None:
        say(f"The server is embedded in {app.settings.data_dir.resolve()}", err=True)
    if reload is None:
        reload = app.settings.environment == "development"
    if not reload:
        return run_procfile(app, urls)
    while True:
        with reloading(app) as change:
            code = run_procfile(app, urls, change)
        if not change.is_due:
            return code
        enter()
        app.settings = Settings.from_env()


def direct(command: str, path: str) -> str:
    """A line of a Procfile without a shell around its program, if it is no more than one.

    A shell that gets SIGTERM ends by that, whatever its program then ends with.

    >>> direct("packmule worker", "/usr/local/bin:/usr/bin")  # doctest: +SKIP
    'exec packmule worker'
    """
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    try:
        words = list(lexer)
    except ValueError:  # a quote is missing, which the shell says better
        return command
    is_one = bool(words) and not any(set(word) <= set(lexer.punctuation_chars) for word in words)
    return f"exec {command}" if is_one and shutil.which(words[0], path=path) else command


def start_lock_nodes(data_dir: Path, count: int, closing: ExitStack) -> list[str]:
    """Start `count` embedded servers for locks, each in its own folder of `data_dir`; their URLs.

    They vote at once: a process that dies loses nothing that they wrote, and a machine that dies takes the
    holders with it. The last process to leave one stops it.
    """
    from packmule.coordination.redis.connection import connect
    from packmule.coordination.redis.embedded_server import EmbeddedServer

    servers = [EmbeddedServer(data_dir / "locks" / str(number)) for number in range(1, count + 1)]
    for server in servers:
        closing.callback(server.stop_if_unused)
        client = connect(None, server.data_dir)
        closing.callback(client.close)
        client.ping()  # the open connection keeps the server running
    return [server.url for server in servers]


def run_procfile(app: App, lock_urls: Sequence[str], change: Change | None = None) -> int:
    """Run the Procfile of the working directory until Ctrl-C or until one process ends; its exit code.

    The others are then asked to stop, and are killed the grace and a few more seconds later. A `change` of
    code stops all.
    """
    from honcho import environ, manager

    from packmule.terminal.procfile_process import ProcfileProcess

    procfile = Path("Procfile")
    packmule = shlex.join(own_command()) if is_of_django() else "packmule"
    ours = PROCFILE.replace(": packmule ", f": {packmule} ")
    commands = environ.parse_procfile(procfile.read_text() if procfile.exists() else ours).processes
    if not any("packmule" in each for each in commands.values()):
        complain("the Procfile names no packmule process: no jobs are performed; add worker: packmule worker")
    if app.settings.webhooks is not None:
        commands.setdefault("webhooks", f"{packmule} webhooks")
    # honcho would kill what still drains five seconds after the first process has ended.
    manager.KILL_WAIT = app.settings.grace + SIGN_OFF_SECONDS
    environment = child_environment(PYTHONUNBUFFERED="1")
    environment.setdefault("PACKMULE_LOG_FORMAT", "untimed")  # honcho adds the time
    if sys.stdout.isatty():
        width = max(map(len, ["system", *commands])) + len("00:00:00  | ")
        environment["COLUMNS"] = str(shutil.get_terminal_size().columns - width)
    if lock_urls:
        environment["PACKMULE_LOCK_URLS"] = ",".join(lock_urls)
    # The Procfile says `packmule`, which need not be on the caller's path.
    scripts = str(Path(sys.executable).parent)
    environment["PATH"] = os.pathsep.join([scripts, environment.get("PATH", os.defpath)])

    class Manager(manager.Manager):  # type: ignore[misc]  # it has no types
        def __init__(self) -> None:
            super().__init__()
            self._process_ctor = ProcfileProcess

        def terminate(self) -> None:
            if self._all_started():
                super().terminate()
            else:  # it knows not all of their ids yet
                threading.Timer(POLL, self.terminate).start()

    processes = Manager()
    for name, command in commands.items():
        processes.add_process(name, direct(command, environment["PATH"]), env=environment)

    if change is not None:
        change.stop = processes.terminate
    processes.loop()
    if change is not None and processes.returncode in STOPPED_BY_US:
        change.is_due = False  # Ctrl-C wins
    return 0 if processes.returncode in STOPPED_BY_US else int(processes.returncode or 0)
