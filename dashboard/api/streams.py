"""Streams: what becomes of one job or batch, as Server-Sent Events until its end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec

from packmule.dashboard.api.endpoint import Call, Endpoint, endpoint
from packmule.dashboard.api.looks import Look, Seen
from packmule.dashboard.api.said import output_from
from packmule.dashboard.api.scopes import Scope
from packmule.dashboard.api.shown import sees_messages, shown
from packmule.dashboard.api.sse import ENDED, MEDIA_TYPE, Pace, event, stream
from packmule.jobs.batch_info import BatchInfo
from packmule.jobs.watch import BEGINNING

_SSE = "text/event-stream"


class Changed(msgspec.Struct, frozen=True):
    """The event `status`: the job's status now."""

    id: str
    status: str


class Advanced(msgspec.Struct, frozen=True):
    """The event `progress`: `done` of `total` units, or as `percent` if there is a total."""

    done: float
    total: float | None
    percent: float | None
    message: str


class Ended(msgspec.Struct, frozen=True):
    """The event `end`, the last one: how the job ended, and its result if the token may see it."""

    id: str
    status: str
    result: Any = None


@endpoint(
    "GET", "/jobs/{id}/stream", Scope.READ, media_type=MEDIA_TYPE, thing="job", takes_token=True, may=(404,)
)  # fmt: skip
async def follow_job(call: Call) -> Any:
    """Follow one job by Server-Sent Events: `status`, `progress`, `output`, and at last `end`.

    The data of `output` is a list of the chunks that the job emitted, for tokens that may see them. A client
    that reconnects with `Last-Event-ID` misses none that is kept.
    """
    last = call.request.headers.get("last-event-id", "")
    if last != ENDED:
        await call.service.read(call.path["id"])
    return await stream(call, last, _job(call, last))


async def _job(call: Call, last: str) -> AsyncIterator[bytes]:
    id, sees = call.path["id"], call.asker.may(Scope.OUTPUT)
    output = output_from(call, last if "/" in last else BEGINNING)
    pace, status, progress = Pace(), "", None
    while True:
        found: Seen = await call.service.look(Look(id, output.entry if sees else None))
        if found.status and found.status != status:
            status = found.status
            yield event("status", Changed(id, status))
        if found.progress and found.progress != progress:
            progress = found.progress
            message = progress.message if sees_messages(call.asker) else ""
            yield event("progress", Advanced(progress.done, progress.total, progress.percent, message))
        if chunks := list(output.taken(found.entries)):
            yield event("output", chunks, output.cursor)
        if found.is_last:
            is_kept = sees and found.status
            result = shown(await call.service.read(id), call.asker).result if is_kept else None
            yield event("end", Ended(id, found.status or "gone", result), ENDED)
            return
        await pace.wait(bool(found.entries) or found.status != status)
        yield b""


@endpoint(
    "GET", "/batches/{id}/stream", Scope.READ, media_type=MEDIA_TYPE, thing="batch", takes_token=True,
    may=(404,),
)  # fmt: skip
async def follow_batch(call: Call) -> Any:
    """Follow one batch or flow by Server-Sent Events: `status` with its counts, and at last `end`."""
    last = call.request.headers.get("last-event-id", "")
    if last != ENDED:
        await call.service.batch(call.path["id"])
    return await stream(call, last, _batch(call))


async def _batch(call: Call) -> AsyncIterator[bytes]:
    pace = Pace()
    before: BatchInfo | None = None
    while True:
        found = await call.service.batch(call.path["id"])
        if found.ended is not None:
            yield event("end", found, ENDED)
            return
        changed = found != before
        if changed:
            before = found
            yield event("status", found)
        await pace.wait(changed)
        yield b""


ENDPOINTS: tuple[Endpoint, ...] = (follow_job, follow_batch)
