"""`packmule batch`: list, show, wait for, pause, resume and cancel batches of jobs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from packmule.plain_text import plain
from packmule.terminal.app import App
from packmule.terminal.audit import Audited
from packmule.terminal.parameters import BatchId, Duration, json_option
from packmule.terminal.say import complain, say

if TYPE_CHECKING:
    from packmule.jobs.batch_state import State

COLUMNS = ("batch", "name", "state", "total", "done", "failed", "canceled", "pending")

MOST_NAMED = 20
"""How many failed jobs `show` names at most."""


@click.group()
def batch() -> None:
    """List, show, pause, resume and cancel batches of jobs."""


@batch.command("list")
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="At most this many."
)
@json_option
@click.pass_obj
def batch_list(app: App, limit: int, json: bool) -> None:
    """List batches, the newest first."""
    from packmule.jobs.batch_state import latest
    from packmule.terminal import show

    found = latest(app.client, limit)
    if json:
        show.as_json([facts_of(state) for state in found])
        return
    show.table(COLUMNS, [row_of(state) for state in found], "no batches", ids="batch")


@batch.command("show")
@click.argument("id", type=BatchId())
@json_option
@click.pass_obj
def batch_show(app: App, id: str, json: bool) -> None:
    """Show one batch: its state, counts and failed jobs."""
    from packmule.jobs.batch import Batch
    from packmule.terminal import show

    found = Batch(app.client, id)
    failed = list(islice(found.failed(), MOST_NAMED))
    facts = facts_of(found.state()) | {"failed jobs": failed}
    if json:
        show.as_json(facts)
    else:
        times = {"created": show.moment(facts["created"]), "ended": show.moment(facts["ended"])}
        named = "\n".join(plain(text) for text in failures(app, failed))
        show.facts(facts | times | {"failed jobs": show.lines(named) if named else None})


@batch.command("wait")
@click.argument("id", type=BatchId())
@click.option("--timeout", type=Duration(), help="Give up after this long, with exit code 1.")
@json_option
@click.pass_obj
def batch_wait(app: App, id: str, timeout: float | None, json: bool) -> int:
    """Wait until a batch has ended.

    Exit with 1 unless all of its jobs finished.
    """
    return follow_batch(app, id, json, timeout)


@batch.command("cancel", cls=Audited)
@click.argument("id", type=BatchId())
@click.pass_obj
def batch_cancel(app: App, id: str) -> None:
    """Cancel the waiting jobs of a batch and stop its running ones."""
    from packmule.jobs.batch import Batch

    found = Batch(app.client, id)
    found.cancel()
    counts = found.state().counts
    say(f"{id}: {counts.canceled:,} canceled, {counts.pending:,} being stopped")


@batch.command("pause", cls=Audited)
@click.argument("id", type=BatchId())
@click.pass_obj
def batch_pause(app: App, id: str) -> None:
    """Pause a batch: workers take no more of its jobs.

    Running jobs go on.
    """
    from packmule.jobs.batch import Batch

    say(f"{id} {'paused' if Batch(app.client, id).pause() else 'was already paused, or has ended'}")


@batch.command("resume", cls=Audited)
@click.argument("id", type=BatchId())
@click.pass_obj
def batch_resume(app: App, id: str) -> None:
    """Resume a paused batch."""
    from packmule.jobs.batch import Batch

    say(f"{id} {'resumed' if Batch(app.client, id).resume() else 'was not paused'}")


def follow_batch(app: App, id: str, json: bool, timeout: float | None = None) -> int:
    """Show a progress bar until the batch has ended, then its counts and failures; 0 if all finished."""
    from packmule.jobs.batch import Batch
    from packmule.terminal import show
    from packmule.terminal.follow import follow_to_end

    state = follow_to_end(app.client, id, timeout)
    if json:
        show.as_json(facts_of(state))
    else:
        total, done, failed, canceled = state.counts
        say(f"{done:,} of {total:,} done, {failed:,} failed, {canceled:,} canceled")
        for text in failures(app, list(islice(Batch(app.client, id).failed(), MOST_NAMED))):
            complain(text)
        if failed > MOST_NAMED:
            complain(f"and {failed - MOST_NAMED:,} others: packmule job list --status failed")
    return 0 if state.counts.done == state.counts.total else 1


def failures(app: App, ids: Sequence[str]) -> Iterator[str]:
    """Each failed job in a line: which it is, and why it failed."""
    from packmule.jobs import reader
    from packmule.terminal.show_job import about

    for id, info in zip(ids, reader.read_many(app.client, ids), strict=True):
        yield about(id, info) + (f": {info.reason}" if info and info.reason else "")


def facts_of(state: State) -> dict[str, Any]:
    """A batch as JSON has it."""
    import msgspec

    from packmule.jobs.batch_info import batch_info

    found: dict[str, Any] = msgspec.to_builtins(batch_info(state))
    return found


def row_of(state: State) -> tuple[Any, ...]:
    """A batch as a row below COLUMNS."""
    from packmule.jobs.batch_info import word

    return (state.id, state.name, word(state), *state.counts, state.counts.pending)
