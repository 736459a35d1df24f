"""`packmule limits`: the groups of jobs that a limit blocks, and the slots that running jobs hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from packmule.terminal.app import App
from packmule.terminal.audit import Audited
from packmule.terminal.parameters import JobId, complete_queues, json_option
from packmule.terminal.say import say

if TYPE_CHECKING:
    from rich.text import Text

    from packmule.observe.slots import Holder


@click.group(invoke_without_command=True)
@click.option(
    "--queue", metavar="NAME", shell_complete=complete_queues, help="Show groups of this queue only."
)
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="At most this many groups."
)
@json_option
@click.pass_context
def limits(ctx: click.Context, queue: str | None, limit: int, json: bool) -> None:
    """Show which limits block jobs.

    Print the largest groups of blocked jobs, the rates of queues, and the holders of slots.
    """
    if ctx.invoked_subcommand is not None:
        return
    from packmule.jobs.client import known_queue
    from packmule.observe import waits
    from packmule.observe.blocked import waiting
    from packmule.terminal import show

    app: App = ctx.obj
    queues = [known_queue(queue, app.queues())] if queue else app.queues()
    found = waiting(app.client, queues, limit)
    if json:
        show.as_json(found)
        return
    holders: dict[str, list[Holder]] = {}
    for holder in found.holders:
        holders.setdefault(holder.key, []).append(holder)
    rows = [
        (
            group.queue,
            ", ".join(map(waits.of_limit, group.limits)) or group.name,
            group.waiting,
            waits.of_group(group, holders.get(group.lacks or "", [])),
        )
        for group in found.groups
    ]
    show.table(("queue", "limited by", "waiting", "first job waits for"), rows, "no group of jobs is waiting")
    if found.of > len(found.groups):
        show.out.print(f"the {len(found.groups)} largest of {found.of:,} groups; --limit N shows more")
    if found.rates:
        show.out.print()
        show.table(("queue", "rate"), sorted(found.rates.items()), "")
    if found.holders:
        show.out.print()
        is_weighted = any(each.slots > 1 for each in found.holders)
        show.table(
            ("job", "worker", "claim", *(["takes"] if is_weighted else []), "slot"),
            [
                (each.job, each.worker, _claim(each), *([each.slots] if is_weighted else []), each.key)
                for each in found.holders
            ],
            "",
            ids="job",
        )


@limits.command("release", cls=Audited)
@click.argument("key")
@click.argument("job", type=JobId())
@click.option(
    "--force", is_flag=True, help="Release it even if the job is running: another may then run beside it."
)
@click.pass_obj
def limits_release(app: App, key: str, job: str, force: bool) -> None:
    """Release the slot KEY that JOB holds.

    Its worker must be gone, unless --force is given.
    """
    from packmule.jobs.slots import release_slot

    worker = release_slot(app.client, key, job, force)
    say(f"{key} released: job {job} of worker {worker or 'unknown'} held it")


def _claim(holder: Holder) -> Text:
    from rich.text import Text

    return Text("alive") if holder.is_alive else Text("gone", "red")
