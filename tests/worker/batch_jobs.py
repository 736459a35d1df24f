"""Jobs that the tests of batches let real processes perform."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from packmule import current, job
from packmule.jobs.batch import Batch
from packmule.jobs.client import Client
from packmule.tests.worker.pool_jobs import note


@job
def double(number: int) -> int:
    if number < 0:
        raise ValueError(f"{number} is less than nothing")
    return 2 * number


@job(isolate=True)
def double_isolated(number: int) -> int:
    return 2 * number


@job(retries=1, retry_intervals=(0,))
def fail_once(path: str) -> str:
    if not Path(path).exists():
        Path(path).touch()
        raise ValueError("the first time")
    return "the second time"


@job
def nap(seconds: float) -> None:
    time.sleep(seconds)


@job
def large(size: int) -> str:
    return "x" * size


@job
def report(path: str, title: str) -> None:
    """Note how the batch stands of which this is the callback."""
    batch = Batch.current()
    counts = batch.state().counts
    note(path, f"{title}: {counts.done} done, {counts.failed} failed, {counts.canceled} canceled")


@job
def add_up(path: str) -> None:
    results = list(Batch.current().results())
    total = sum(each.value for each in results if each.error is None)
    note(path, f"{total} by {len(results)}")


@job
def split(depth: int) -> None:
    """Add two jobs like itself to its batch, `depth` times."""
    if depth:
        split.options(batch=current.batch_id()).enqueue_many([(depth - 1,)] * 2)


@job
async def nap_async(seconds: float) -> None:
    await asyncio.sleep(seconds)


@job
async def cancel_async(id: str) -> None:
    Batch(Client.default(), id).cancel()
