"""Follow jobs and batches to their end with live progress bars."""

from __future__ import annotations

import time
from collections.abc import Mapping

from redis import Redis
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from packmule.dashboard.previews.outputs import paths_of
from packmule.jobs import keys, reader
from packmule.jobs.batch import Batch
from packmule.jobs.batch_state import State
from packmule.jobs.reader import JobInfo
from packmule.observe.waits import of_unknown
from packmule.plain_text import plain
from packmule.terminal import show, show_job
from packmule.terminal.app import App
from packmule.terminal.say import complain, program, say
from packmule.terminal.show import err
from packmule.units import given_span

NO_WORKER_SECONDS = 2.0


def follow(
    client: Redis,
    labels: Mapping[str, str],
    timeout: float | None = None,
    hint_after: float = NO_WORKER_SECONDS,
) -> dict[str, JobInfo]:
    """Show a progress bar for each of `labels`, job ids and what to call them, until all have ended.

    The bars go to standard error, and only to a terminal. If no worker runs after `hint_after` seconds, a
    hint says so. Raises `NoSuchJob`, and `TimeoutError` after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout if timeout is not None else float("inf")
    hint_at = time.monotonic() + hint_after
    ended: dict[str, JobInfo] = {}
    hinted: set[str] = set()
    with live_bars() as bars:
        tasks = {id: bars.add_task(plain(label), total=100, state="") for id, label in labels.items()}
        while len(ended) < len(labels):
            for id in labels.keys() - ended.keys():
                info = reader.read(client, id)
                bars.update(tasks[id], completed=_percent(info), state=_state(info))
                if id not in hinted and (lacks := of_unknown(client, info)):
                    hinted.add(id)
                    bars.console.print(plain(f"{id} waits for {lacks}"))
                if info.has_ended:
                    ended[id] = info
                    bars.stop_task(tasks[id])
            now = time.monotonic()
            if now > deadline:
                waiting = labels.keys() - ended.keys()
                raise TimeoutError(
                    f"{', '.join(waiting)} has not ended after {given_span(timeout)}, and continues: "
                    f"packmule job wait {next(iter(waiting))}"
                )
            if now > hint_at:
                hint_at = float("inf")
                hint_without_workers(client, bars)
            time.sleep(reader.POLL_INTERVAL)
    return ended


def follow_one(app: App, id: str, label: str, json: bool, timeout: float | None = None) -> int:
    """Follow one job and print its result, or all of it as JSON; 0 if it finished, 1 if not.

    A terminal also gets where its outputs are.
    """
    info = follow(app.client, {id: label}, timeout)[id]
    if json:
        show.as_json(info)
    elif info.status == "finished":
        show_job.result(info)
        if err.is_terminal:
            for path in paths_of(info):
                say(app.storage.locate(path), err=True)
    else:
        complain(f"job {id} {info.status}: {info.reason}")
    return 0 if info.status == "finished" else 1


def follow_to_end(client: Redis, id: str, timeout: float | None = None) -> State:
    """Show a progress bar for the batch called `id` until it has ended.

    Raises `NoSuchBatch`, and `TimeoutError` after `timeout` seconds.
    """
    batch = Batch(client, id)
    deadline = time.monotonic() + timeout if timeout is not None else float("inf")
    hint_at = time.monotonic() + NO_WORKER_SECONDS
    with live_bars() as bars:
        task = bars.add_task("batch", total=None, state="")
        while True:
            state = batch.state()
            total, done, failed, canceled = state.counts
            said = f"{done:,} of {total:,}" + (f", {failed:,} failed" if failed else "")
            bars.update(task, total=total or None, completed=done + failed + canceled, state=said)
            if state.ended is not None:
                return state
            now = time.monotonic()
            if now > deadline:
                raise TimeoutError(
                    f"{state.counts.pending:,} jobs of batch {id} have not ended after "
                    f"{given_span(timeout)}, and continue: packmule batch wait {id}"
                )
            if now > hint_at:
                hint_at = float("inf")
                hint_without_workers(client, bars)
            time.sleep(reader.POLL_INTERVAL)


def live_bars() -> Progress:
    """Progress bars on standard error, if that is a terminal."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[state]}", markup=False),
        console=err,
        disable=not err.is_terminal,
    )


def _percent(info: JobInfo) -> float:
    if info.status == "finished":
        return 100
    return (info.progress.percent if info.progress else None) or 0


def _state(info: JobInfo) -> str:
    if info.has_ended:
        return plain(info.status)
    return plain((show_job.progress(info) or info.status).partition("% ")[2] or info.status)


def hint_without_workers(client: Redis, bars: Progress) -> None:
    """Say that no worker runs, if so."""
    if not client.scard(keys.WORKERS):
        bars.console.print(f"no worker is running; start one with: {program()} worker")
