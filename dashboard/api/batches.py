"""Batches by HTTP: create one, add jobs, seal it, read, wait, pause, resume and cancel."""

from __future__ import annotations

import asyncio
import time
from itertools import islice
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from packmule.dashboard.api.endpoint import Call, Endpoint, Reply, endpoint
from packmule.dashboard.api.enqueueing import ManyEnqueued, NewJob, NewJobs, enqueued
from packmule.dashboard.api.idempotency import Repeat, idempotency
from packmule.dashboard.api.jobs import LONGEST_PAUSE, Waiting
from packmule.dashboard.api.preparing import CALLBACKS, of_callback, prepared
from packmule.dashboard.api.scopes import Scope
from packmule.dashboard.api.shown import as_shown
from packmule.dashboard.api.spans import SpanText
from packmule.dashboard.api.steering import Lending, ReadToken, lent
from packmule.errors import Error
from packmule.jobs import batch_state, keys
from packmule.jobs.batch import KEEP, Batch, Settings
from packmule.jobs.batch_info import BatchInfo, batch_info
from packmule.jobs.spans import LONGEST_SPAN


class NewBatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A batch to be made: it can't end before it is sealed.

    `on_complete` is enqueued when all of its jobs have ended, and `on_success` if all of them finished. With
    `collect` it keeps what each job returned. It is kept for `keep` after its end, and may be a part of the
    batch `parent`.
    """

    name: Annotated[str, Meta(max_length=1000)] = ""
    on_complete: NewJob | None = None
    on_success: NewJob | None = None
    collect: bool = False
    keep: Annotated[float, Meta(ge=1, le=LONGEST_SPAN)] | SpanText = KEEP
    parent: str | None = None


class Limited(msgspec.Struct, frozen=True):
    """How many at most."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 20


class Outcome(msgspec.Struct, frozen=True):
    """What a job of a batch returned, or the error that ended it."""

    job: str
    value: Any
    error: str | None


class IdsPage(msgspec.Struct, frozen=True):
    """Ids of jobs, and whether there are more."""

    ids: list[str]
    is_partial: bool


class OutcomesPage(msgspec.Struct, frozen=True):
    """Outcomes in no order, and whether there are more."""

    outcomes: list[Outcome]
    is_partial: bool


@endpoint("POST", "/batches", Scope.ENQUEUE, body=NewBatch, answer=BatchInfo, status=201, may=(404, 409),
          takes_key=True)  # fmt: skip
async def create(call: Call) -> Reply:
    """Create a batch; add jobs to it, and seal it then.

    With an `Idempotency-Key` the same request within a day answers the same batch, as it is then.
    """
    body: NewBatch = call.body
    service, key = call.service, idempotency(call)
    if key and (before := await service.in_thread(key.begin, service.client)):
        return call.made(await service.batch(before.ids[0]), f"/batches/{before.ids[0]}")
    callbacks = {name: await prepared(call, getattr(body, name), f"/{name}") for name in CALLBACKS}
    settings = Settings(body.name, callbacks["on_complete"], callbacks["on_success"], body.collect, body.keep)
    id = key.name if key else keys.new_job_id()

    def created() -> BatchInfo:
        service.site.jobs.create_batch(id, body.parent, *settings.written(id))
        return batch_info(Batch(service.client, id).state())

    try:
        found = await service.in_thread(created)
    except Error as error:
        raise of_callback(error, callbacks) from None
    if key:
        await service.in_thread(key.end, service.client, Repeat([id], []))
    return call.made(found, f"/batches/{id}")


@endpoint("POST", "/batches/{id}/jobs", Scope.ENQUEUE, body=NewJobs, answer=ManyEnqueued, status=201,
          may=(404, 409), takes_key=True)  # fmt: skip
async def add(call: Call) -> ManyEnqueued:
    """Add jobs to a batch that has not ended."""
    id = call.path["id"]
    await call.service.batch(id)
    return await enqueued(call, call.body, {"batch": id})


@endpoint("POST", "/batches/{id}/seal", Scope.ENQUEUE, answer=BatchInfo, may=(404,))
def seal(call: Call) -> BatchInfo:
    """Let a batch end once its jobs have."""
    return _changed(call, Batch.seal)


@endpoint("POST", "/batches/{id}/pause", Scope.ACT, answer=BatchInfo, action="batch pause", may=(404,))
def pause(call: Call) -> BatchInfo:
    """Keep workers from taking a batch's jobs."""
    return _changed(call, Batch.pause)


@endpoint("POST", "/batches/{id}/resume", Scope.ACT, answer=BatchInfo, action="batch resume", may=(404,))
def resume(call: Call) -> BatchInfo:
    """Let workers take the jobs of a paused batch again."""
    return _changed(call, Batch.resume)


@endpoint("POST", "/batches/{id}/cancel", Scope.ACT, answer=BatchInfo, action="batch cancel", may=(404,))
def cancel(call: Call) -> BatchInfo:
    """Cancel a batch's waiting jobs and stop its running ones."""
    return _changed(call, Batch.cancel)


def _changed(call: Call, change: Any) -> BatchInfo:
    batch = Batch(call.service.client, call.path["id"])
    change(batch)
    return batch_info(batch.state())


@endpoint("GET", "/batches", Scope.READ, query=Limited, answer=list[BatchInfo])
def batches(call: Call) -> list[BatchInfo]:
    """List the latest batches and flows, the newest first."""
    return [batch_info(each) for each in batch_state.latest(call.service.client, call.query.limit)]


@endpoint("GET", "/batches/{id}", Scope.READ, answer=BatchInfo, thing="batch", takes_token=True,
          has_etag=True, may=(404,))  # fmt: skip
async def read_batch(call: Call) -> BatchInfo:
    """Read one batch or flow: its state and counts."""
    return await call.service.batch(call.path["id"])


@endpoint("GET", "/batches/{id}/wait", Scope.READ, query=Waiting, answer=BatchInfo, thing="batch",
          takes_token=True, may=(404,))  # fmt: skip
async def wait_for_batch(call: Call) -> BatchInfo:
    """Wait until a batch has ended, or for `timeout`, and read it then: look at its state."""
    began = time.monotonic()
    with call.service.waiting(call.query.seconds()) as timeout:
        while True:
            found = await call.service.batch(call.path["id"])
            left = timeout - (time.monotonic() - began)
            if found.ended is not None or left <= 0 or await call.request.is_disconnected():
                return found
            await asyncio.sleep(min(LONGEST_PAUSE / 2, left))


@endpoint("GET", "/batches/{id}/failed", Scope.READ, query=Limited, answer=IdsPage, may=(404,))
def failed(call: Call) -> IdsPage:
    """List failed jobs of a batch, in no order."""
    batch = Batch(call.service.client, call.path["id"])
    batch.state()
    found = list(islice(batch.failed(), call.query.limit + 1))
    return IdsPage(found[: call.query.limit], len(found) > call.query.limit)


@endpoint("GET", "/batches/{id}/results", Scope.PAYLOADS, query=Limited, answer=OutcomesPage, may=(404,))
def results(call: Call) -> OutcomesPage:
    """Read what the jobs of a batch returned that collects it, in no order."""
    batch = Batch(call.service.client, call.path["id"])
    batch.state()
    found = [
        Outcome(job, as_shown(value, call.asker), error)
        for job, value, error in islice(batch.results(), call.query.limit + 1)
    ]
    return OutcomesPage(found[: call.query.limit], len(found) > call.query.limit)


@endpoint("POST", "/batches/{id}/read-token", Scope.READ, body=Lending, answer=ReadToken, status=201,
          may=(404,))  # fmt: skip
async def lend(call: Call) -> Reply:
    """Make a short token for an application's user, which shows this batch alone."""
    await call.service.batch(call.path["id"])
    return await lent(call, "batch")


ENDPOINTS: tuple[Endpoint, ...] = (
    create, add, seal, pause, resume, cancel, batches, read_batch, wait_for_batch, failed, results, lend,
)  # fmt: skip
