"""`packmule up`: the whole Procfile in one terminal, through honcho."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import click

from packmule.config import child_environment
from packmule.terminal.app import App
from packmule.terminal.say import say

PROCFILE = """\
worker: packmule worker
scheduler: packmule scheduler
dashboard: packmule dashboard
"""
"""What runs if the working directory has no Procfile; the repository's Procfile is equal."""

SIGN_OFF_SECONDS = 5.0
STOPPED_BY_US = {128 + signal.SIGINT, 128 + signal.SIGTERM}


@click.command()
@click.option("--lock-nodes", type=click.Choice(["1", "3", "5"]), help="Start this many lock nodes as well.")
@click.pass_obj
def up(app: App, lock_nodes: str | None) -> int:
    """Run all processes of the Procfile in this terminal.

    Ctrl-C drains the workers and stops the others.
    """
    if lock_nodes and app.settings.lock_urls:
        raise click.UsageError("--lock-nodes starts its own servers: unset PACKMULE_LOCK_URLS")
    # A module or a server that is missing is reported once, before anything starts.
    app.load_jobs()
    _ = app.client
    urls = start_lock_nodes(app.settings.data_dir, int(lock_nodes or 0), app.closing)
    if urls:
        say(f"For commands in other terminals: export PACKMULE_LOCK_URLS={shlex.quote(','.join(urls))}")
    return run_procfile(app.settings.grace, urls, has_webhooks=app.settings.webhooks is not None)


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


def run_procfile(grace: float, lock_urls: Sequence[str] = (), *, has_webhooks: bool = False) -> int:
    """Run the Procfile of the working directory until Ctrl-C or until one process ends; its exit code.

    The others are then asked to stop, and are killed `grace` and a few more seconds later. `has_webhooks`
    adds the process that sends them.
    """
    from honcho import environ, manager

    procfile = Path("Procfile")
    commands = environ.parse_procfile(procfile.read_text() if procfile.exists() else PROCFILE).processes
    if has_webhooks:
        commands.setdefault("webhooks", "packmule webhooks")
    # honcho would kill what still drains five seconds after the first process has ended.
    manager.KILL_WAIT = grace + SIGN_OFF_SECONDS
    environment = child_environment(PYTHONUNBUFFERED="1")
    environment.setdefault("PACKMULE_LOG_FORMAT", "untimed")  # honcho adds the time
    if lock_urls:
        environment["PACKMULE_LOCK_URLS"] = ",".join(lock_urls)
    # The Procfile says `packmule`, which need not be on the caller's path.
    ours = str(Path(sys.executable).parent)
    environment["PATH"] = os.pathsep.join([ours, environment.get("PATH", os.defpath)])
    processes = manager.Manager()
    for name, command in commands.items():
        processes.add_process(name, command, env=environment)
    processes.loop()
    return 0 if processes.returncode in STOPPED_BY_US else int(processes.returncode or 0)
