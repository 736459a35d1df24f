"""`packmule webhooks`: post events of jobs to the URLs of a file."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

from packmule.config import SettingsError, secret
from packmule.terminal.app import App
from packmule.terminal.audit import Audited
from packmule.terminal.health import answering, health_option
from packmule.terminal.parameters import json_option, verbosity
from packmule.terminal.say import say

if TYPE_CHECKING:
    from packmule.jobs.outgoing.door import Allowed
    from packmule.observe.webhooks.endpoints import Endpoint


@click.group(invoke_without_command=True)
@click.option(
    "--file",
    "file",
    type=click.Path(path_type=Path),
    help="A TOML file of webhooks.  [default: PACKMULE_WEBHOOKS]",
)
@health_option
@verbosity("-q", "--quiet")
@click.pass_context
def webhooks(ctx: click.Context, file: Path | None, health: str | None, verbose: bool, quiet: bool) -> None:
    """Post job events to webhooks until SIGTERM.

    Any number of these processes may run.
    """
    app: App = ctx.obj
    hooks, allowed = _read(app, file)
    ctx.obj = (app, hooks, allowed)
    if ctx.invoked_subcommand is not None:
        return
    from packmule.observe.webhooks.sender import run
    from packmule.terminal import logs

    logs.begin(app.settings, verbose, quiet)
    stop = threading.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: stop.set())
    with answering(app, health) as vitals:
        vitals.show(loops=False)
        run(app.connect, hooks, allowed, stop)


@webhooks.command("list")
@json_option
@click.pass_obj
def webhooks_list(given: tuple[App, list[Endpoint], Allowed], json: bool) -> None:
    """List webhooks with their counts of waiting and dead events."""
    from packmule.observe.webhooks import state
    from packmule.terminal import show

    app, hooks, _ = given
    rows = [
        {
            "webhook": each.name,
            "url": each.endpoint.hook.url,
            "types": list(each.endpoint.hook.types),
            "queues": list(each.endpoint.hook.queues),
            "entries_behind": each.waiting,
            "given_up": each.given_up,
        }
        for each in state.read(app.client, hooks)
        if each.endpoint is not None
    ]
    if json:
        show.as_json(rows)
        return
    columns = ("webhook", "url", "types", "queues", "waiting", "dead")
    cells = [[", ".join(cell) if isinstance(cell, list) else cell for cell in row.values()] for row in rows]
    cells = [["-" if cell is None else cell for cell in row] for row in cells]  # as before its first start
    show.table(columns, cells, "no webhooks")


@webhooks.command("dead", cls=Audited)
@click.argument("name")
@click.option("--resend", is_flag=True, help="Send them again, the oldest first, until one is refused.")
@json_option
@click.pass_obj
def webhooks_dead(given: tuple[App, list[Endpoint], Allowed], name: str, resend: bool, json: bool) -> int:
    """List the events that a webhook has given up on, and why."""
    from packmule.observe.webhooks import sender as source
    from packmule.terminal import show

    app, hooks, allowed = given
    endpoint = next((each for each in hooks if each.name == name), None)
    if endpoint is None:
        raise click.UsageError(
            f"no webhook is called {name!r}: the file has {', '.join(each.name for each in hooks)}"
        )
    if resend:
        sent, left = source.resend(app.client, endpoint, allowed)
        say(f"{sent:,} sent, {left:,} left")
        return 1 if left else 0
    found = list(source.dead(app.client, name))
    if json:
        show.as_json(found)
    else:
        rows = [(each["id"], each["deliveries"], each["reason"]) for each in found]
        show.table(("event", "deliveries", "reason"), rows, "no dead events")
    return 0


def _read(app: App, file: Path | None) -> tuple[list[Endpoint], Allowed]:
    from packmule.jobs.outgoing.door import Allowed
    from packmule.observe.webhooks.endpoints import read_endpoints

    path = file or app.settings.webhooks
    if path is None:
        raise SettingsError("no webhooks file is given: use --file or PACKMULE_WEBHOOKS")
    allowed = Allowed(app.settings.webhook_allow)
    return read_endpoints(path, allowed, secret), allowed
