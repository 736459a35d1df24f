"""`packmule queue`: list, pause, resume, purge and limit queues."""

from __future__ import annotations

import click

from packmule.plain_text import plain
from packmule.terminal.app import App
from packmule.terminal.audit import Audited
from packmule.terminal.parameters import complete_queues, json_option
from packmule.terminal.say import say

USUAL = ("queued", "started", "failed")


@click.group()
def queue() -> None:
    """List, pause, resume, purge and limit queues."""


@queue.command("list")
@json_option
@click.pass_obj
def queue_list(app: App, json: bool) -> None:
    """List queues with their job counts by status.

    Stopped jobs count as failed. `behind` counts jobs that wait for others of their group.
    """
    from packmule.terminal import show

    found = depths_by_queue(app)
    if json:
        show.as_json(found)
        return
    show_queues(found)


@queue.command("pause", cls=Audited)
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=complete_queues)
@click.pass_obj
def queue_pause(app: App, names: tuple[str, ...]) -> None:
    """Pause queues: workers take no more jobs from them.

    Running jobs go on, and new ones wait.
    """
    from packmule.jobs.client import known_queue
    from packmule.jobs.queues import pause

    for name in [known_queue(name, app.queues()) for name in names]:
        say(f"{name} {'paused' if pause(app.client, name) else 'was already paused'}")


@queue.command("resume", cls=Audited)
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=complete_queues)
@click.pass_obj
def queue_resume(app: App, names: tuple[str, ...]) -> None:
    """Resume paused queues."""
    from packmule.jobs.client import known_queue
    from packmule.jobs.queues import resume

    for name in [known_queue(name, app.queues()) for name in names]:
        say(f"{name} {'resumed' if resume(app.client, name) else 'was not paused'}")


@queue.command("purge", cls=Audited)
@click.argument("name", shell_complete=complete_queues)
@click.option("--yes", is_flag=True, help="Don't ask for confirmation.")
@click.pass_obj
def queue_purge(app: App, name: str, yes: bool) -> None:
    """Delete all jobs of a queue that have not started.

    Running jobs stay, and so do jobs that wait for other jobs.
    """
    from packmule.jobs.client import known_queue
    from packmule.jobs.queues import purge

    known_queue(name, app.queues())
    if not yes:
        click.confirm(f"Delete all jobs waiting in {plain(name)}?", abort=True)
    say(f"{name}: {purge(app.client, name):,} jobs deleted")


@queue.command("limit", cls=Audited)
@click.argument("name", shell_complete=complete_queues)
@click.argument("rate")
@click.pass_obj
def queue_limit(app: App, name: str, rate: str) -> None:
    """Limit how many jobs of a queue start per interval.

    The limit applies across all workers. RATE is 100/m, 5/30s or "10/s burst 1", for example; none removes
    the limit.
    """
    from packmule.coordination.limits.rate import InvalidRate, Rate
    from packmule.jobs.client import known_queue
    from packmule.jobs.queues import set_rate

    try:
        wanted = None if rate == "none" else Rate.parse(rate)
    except InvalidRate as error:
        raise click.BadParameter(str(error), param_hint="RATE") from None
    set_rate(app.client, known_queue(name, app.queues()), wanted)
    say(f"{name} {'has no rate limit' if wanted is None else f'is limited to {wanted}'}")


def depths_by_queue(app: App) -> dict[str, dict[str, int | bool]]:
    """Each queue's jobs by status, those `behind` others of their group, and whether it is `paused`."""
    import msgspec

    from packmule.observe.queue_info import queue_infos

    found: dict[str, dict[str, int | bool]] = msgspec.to_builtins(queue_infos(app.client, app.queues()))
    return found


def show_queues(found: dict[str, dict[str, int | bool]]) -> None:
    """Print a table of queues; on a terminal without columns of which all is zero, but for the USUAL ones."""
    from packmule.terminal import show

    columns = [
        name
        for name in next(iter(found.values()), {})
        if name in USUAL or not show.out.is_terminal or any(counts[name] for counts in found.values())
    ]
    rows = [(queue, *(counts[name] for name in columns)) for queue, counts in found.items()]
    show.table(("queue", *columns), rows, "no queues", shorten="queue")
