"""Streams: answers that go on, such as events; bounded in number, and ended with the right to them."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException

from packmule.plain_text import plain

if TYPE_CHECKING:
    import anyio

    from packmule.dashboard.guarding.endings import Endings

logger = logging.getLogger(__name__)

MOST = 1000
MOST_EACH = 30
"""Of one session: a browser with many open tabs."""

LOOK_INTERVAL = 10.0
"""Seconds after which the right to a stream is looked at again, if nobody says earlier that it has ended."""

BUSY = {"Retry-After": "10", "Connection": "close"}


@dataclass(frozen=True, slots=True)
class Right:
    """Whose a stream is: `holder` is what `Endings` calls it, and `goes_on` asks Redis whether it still is.

    Streams of one `session` are counted together. `interval` is `LOOK_INTERVAL` if it isn't given.
    """

    holder: str
    goes_on: Callable[[], Awaitable[bool]]
    session: str = ""
    interval: float | None = None


@dataclass(eq=False)
class Stream:
    """An open stream."""

    right: Right | None
    running: anyio.CancelScope
    doubted: asyncio.Event = field(default_factory=asyncio.Event)


class Streams:
    """The streams that are open now; `endings` says at once whose rights have ended."""

    def __init__(self, endings: Endings) -> None:
        self.by_viewer: Counter[str] = Counter()
        self._endings = endings
        self._open: set[Stream] = set()
        self._has_ended = False

    def open(self, right: Right | None, running: anyio.CancelScope) -> Stream:
        """Count one more stream, which `close` takes; raises a 503 if there are too many."""
        key = right.session if right else ""
        if self._has_ended or self.by_viewer.total() >= MOST or (key and self.by_viewer[key] >= MOST_EACH):
            raise HTTPException(503, "Too many live pages are open: close some.", BUSY)
        self.by_viewer[key] += 1
        stream = Stream(right, running)
        stream.doubted.set()  # the right may have ended since it was looked at
        self._open.add(stream)
        if right:
            self._endings.listen(self.doubt)
        return stream

    def close(self, stream: Stream) -> None:
        """Count one stream less."""
        self._open.discard(stream)
        key = stream.right.session if stream.right else ""
        self.by_viewer[key] -= 1
        if self.by_viewer[key] <= 0:
            del self.by_viewer[key]
        if not self._open:
            self._endings.rest()

    def end(self) -> None:
        """End all streams, since the server ends; from now on there are none."""
        self._has_ended = True
        for stream in list(self._open):
            stream.running.cancel()
        self._endings.close()

    def doubt(self, holder: str | None) -> None:
        """Look at once at the rights of `holder`'s streams, or at all, since they may have ended."""
        for stream in self._open:
            if holder is None or (stream.right and stream.right.holder == holder):
                stream.doubted.set()

    async def watch(self, stream: Stream, right: Right) -> None:
        """End a stream once its viewer is no longer the same: logged out, or with other rights."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(stream.doubted.wait(), right.interval or LOOK_INTERVAL)
            stream.doubted.clear()
            try:
                if not await right.goes_on():
                    break
            except Exception as error:  # Redis is away: the stream says so itself, and goes on later
                logger.warning("A session can't be checked: %s", plain(error))
        stream.running.cancel()
