"""Server-Sent Events: how a stream is written, paced, kept alive, and ended with the right to it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.responses import Response, StreamingResponse

from packmule.coordination.redis.backoff import REDIS_ERRORS, BackOff
from packmule.dashboard.api.problems import Refused
from packmule.dashboard.guarding.endings import token_holder
from packmule.dashboard.guarding.streams import Right
from packmule.errors import NotFound, Unavailable

if TYPE_CHECKING:
    from packmule.dashboard.api.endpoint import Call

MEDIA_TYPE = "text/event-stream"

ENDED = "end"
"""The id of the last event: a browser that connects again behind it is told that there is no more."""

QUIET_SECONDS = 15.0
"""A comment is sent after this long without an event, so that nothing on the way closes the connection."""

CHECK_SECONDS = 5.0
"""How often a stream's token is checked again, if nobody says earlier that it was revoked."""

MOST_STREAMS, MOST_OF_ONE = 1_000, 100
"""Streams of a process, and of one token, that are open at once."""

FIRST_PAUSE, LONGEST_PAUSE = 0.25, 1.0
LIVELY_SECONDS = 10.0

log = logging.getLogger("packmule.api")


class Pace:
    """Pauses between looks: short while something happens, then longer."""

    def __init__(self) -> None:
        self._changed_at = time.monotonic()

    async def wait(self, has_changed: bool) -> None:
        """Wait until the next look is due."""
        now = time.monotonic()
        if has_changed:
            self._changed_at = now
        await asyncio.sleep(FIRST_PAUSE if now - self._changed_at < LIVELY_SECONDS else LONGEST_PAUSE)


def event(name: str, data: Any, id: str | None = None) -> bytes:
    r"""One event; its data is one line of JSON.

    >>> event("status", {"status": "started"})
    b'event: status\ndata: {"status":"started"}\n\n'
    """
    lines = [b"event: " + name.encode(), b"data: " + msgspec.json.encode(data, enc_hook=str)]
    if id is not None:
        lines.insert(0, b"id: " + id.encode())
    return b"\n".join(lines) + b"\n\n"


async def stream(call: Call, last: str, events: AsyncIterator[bytes]) -> Response:
    """The response that sends `events`; what it sends is empty when there was nothing to say.

    A client whose `last` event was the end gets 204, which keeps a browser from asking again.
    """
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    if last == ENDED:
        return Response(status_code=204, headers=headers)
    open_now, key = call.service.streams, call.asker.key or call.asker.name
    if open_now.total() >= MOST_STREAMS or open_now[key] >= MOST_OF_ONE:
        text = f"{open_now[key]} streams of yours are open, and {open_now.total()} in all: close some"
        raise Refused(503, "TooManyStreams", text)
    if call.asker.key:  # the guard looks after sessions by itself, and after tokens by this
        goes_on = partial(call.service.admission.still, call.request)
        right = Right(token_holder(call.asker.key), goes_on, interval=CHECK_SECONDS)
        call.request.state.right = right
    return StreamingResponse(_kept_alive(call, key, events), 200, headers, MEDIA_TYPE)


async def _kept_alive(call: Call, key: str, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    open_now, backoff = call.service.streams, BackOff()
    open_now[key] += 1
    said_at = time.monotonic()
    try:
        yield b"retry: 2000\n\n"
        while True:
            try:
                found = await anext(events, None)
                backoff.reset()
            except NotFound:
                yield event("end", {"status": "gone"}, ENDED)
                return
            except (Unavailable, *REDIS_ERRORS):
                await asyncio.sleep(backoff.next())
                return  # the browser connects again, and goes on behind the last event
            if found is None:
                return
            if found or time.monotonic() - said_at >= QUIET_SECONDS:
                said_at = time.monotonic()
                yield found or b": still here\n\n"
    finally:
        open_now[key] -= 1
        if open_now[key] <= 0:
            del open_now[key]
