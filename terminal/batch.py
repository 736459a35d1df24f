"""The commands for batches: thousands of jobs under one id."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from packmule.terminal.app import App
from packmule.terminal.audit import Audited
from packmule.terminal.parameters import Duration

if TYPE_CHECKING:
    from packmule.jobs.batch import State

MOST_NAMED = 20
"""Failed jobs that `show` names."""


@click.group()
def batch() -> None:
    """Look at batches of jobs; pause, resume and cancel them."""


@batch.command("list")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@click.option("--json", "json", is_flag=True)
@click.pass_obj
def batch_list(app: App, limit: int, json: bool) -> None:
    """The latest batches, the newest first."""
    from packmule.jobs.batch import batches
    from packmule.terminal import show

    found = batches(app.client, limit)
    if json:
        show.as_json([_facts(state) for state in found])
        return
    rows = [(state.id, state.name, _word(state), *state.counts, state.counts.pending) for state in found]
    columns = ("batch", "name", "state", "total", "done", "failed", "canceled", "pending")
    show.table(columns, rows, "no batches")


@batch.command("show")
@click.argument("id")
@click.option("--json", "json", is_flag=True)
@click.pass_obj
def batch_show(app: App, id: str, json: bool) -> None:
    """How a batch stands, and which of its jobs failed."""
    from packmule.jobs.batch import Batch
    from packmule.terminal import show

    found = Batch(app.client, id)
    facts = _facts(found.state()) | {"failed jobs": list(islice(found.failed(), MOST_NAMED))}
    if json:
        show.as_json(facts)
    else:
        show.facts(facts | {"failed jobs": "\n".join(facts["failed jobs"])})


@batch.command("wait")
@click.argument("id")
@click.option("--timeout", type=Duration(), help="Give up after this long, with exit code 1.")
@click.option("--json", "json", is_flag=True)
@click.pass_obj
def batch_wait(app: App, id: str, timeout: float | None, json: bool) -> int:
    """Wait until a batch has ended; exit 1 if not all of its jobs finished."""
    return follow_batch(app, id, json, timeout)


@batch.command("cancel", cls=Audited)
@click.argument("id")
@click.pass_obj
def batch_cancel(app: App, id: str) -> None:
    """Cancel its jobs that wait, and stop those that run."""
    from packmule.jobs.batch import Batch

    found = Batch(app.client, id)
    found.cancel()
    counts = found.state().counts
    click.echo(f"{id}: {counts.canceled:,} canceled, {counts.pending:,} told to stop")


@batch.command("pause", cls=Audited)
@click.argument("id")
@click.pass_obj
def batch_pause(app: App, id: str) -> None:
    """Let no worker take its jobs; what runs goes on."""
    from packmule.jobs.batch import Batch

    click.echo(f"{id} {'paused' if Batch(app.client, id).pause() else 'was paused already, or has ended'}")


@batch.command("resume", cls=Audited)
@click.argument("id")
@click.pass_obj
def batch_resume(app: App, id: str) -> None:
    """Let its jobs go on."""
    from packmule.jobs.batch import Batch

    click.echo(f"{id} {'resumed' if Batch(app.client, id).resume() else 'was not paused'}")


def follow_batch(app: App, id: str, json: bool, timeout: float | None = None) -> int:
    """Show one bar until the batch has ended, then how it ended; 0 if all of its jobs finished, else 1."""
    from packmule.terminal import show
    from packmule.terminal.follow import follow_to_end

    state = follow_to_end(app.client, id, timeout)
    if json:
        show.as_json(_facts(state))
    else:
        total, done, failed, canceled = state.counts
        click.echo(f"{done:,} of {total:,} done, {failed:,} failed, {canceled:,} canceled")
    return 0 if state.counts.done == state.counts.total else 1


def _facts(state: State) -> dict[str, Any]:
    from packmule.scheduler.schedules.cron import shown

    return {
        "batch": state.id,
        "name": state.name,
        "state": _word(state),
        **state.counts._asdict(),
        "pending": state.counts.pending,
        "created": shown(int(state.created)),
        "ended": shown(int(state.ended)) if state.ended is not None else None,
        "in": state.parent,
    }


def _word(state: State) -> str:
    if state.ended is not None:
        return "ended"
    if state.is_canceled:
        return "canceled"
    if state.is_paused:
        return "paused"
    return "running" if state.is_sealed else "growing"
