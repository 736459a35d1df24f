"""Streams: answers that go on, such as events; bounded in number, and ended with their viewer's session."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from packmule.plain_text import plain

if TYPE_CHECKING:
    import anyio
    from starlette.requests import Request

    from packmule.dashboard.viewer import Viewer

logger = logging.getLogger(__name__)

MOST = 1000
MOST_EACH = 30
"""Of one session: a browser with many open tabs."""

LOOK_INTERVAL = 10.0
"""Seconds after which a stream's session is looked at again."""

BUSY = {"Retry-After": "10", "Connection": "close"}


class Streams:
    """The streams that are open now."""

    def __init__(self, identify: Callable[[Request], Viewer | None]) -> None:
        self.identify = identify
        self.by_viewer: Counter[str] = Counter()
        self._changed: dict[str, asyncio.Event] = {}
        self._running: set[anyio.CancelScope] = set()
        self._has_ended = False

    def open(self, viewer: Viewer | None, running: anyio.CancelScope) -> str:
        """Count one more stream, and return what `close` takes; raises a 503 if there are too many."""
        key = f"{viewer.name} {viewer.session}" if viewer else ""
        if self._has_ended or self.by_viewer.total() >= MOST or (viewer and self.by_viewer[key] >= MOST_EACH):
            raise HTTPException(503, "Too many pages are being kept up to date: close some.", BUSY)
        self.by_viewer[key] += 1
        self._running.add(running)
        return key

    def close(self, key: str, running: anyio.CancelScope) -> None:
        """Count one stream less."""
        self._running.discard(running)
        self.by_viewer[key] -= 1
        if self.by_viewer[key] <= 0:
            del self.by_viewer[key]

    def end(self) -> None:
        """End all streams, since the server ends; from now on there are none."""
        self._has_ended = True
        for running in list(self._running):
            running.cancel()

    def look(self, viewer: Viewer) -> None:
        """Look soon at the sessions of `viewer`'s streams, since they may have ended."""
        if changed := self._changed.pop(viewer.name, None):
            changed.set()

    async def watch(self, request: Request, viewer: Viewer, running: anyio.CancelScope) -> None:
        """End what runs once `request`'s viewer is no longer the same: logged out, or with other rights."""
        while True:
            changed = self._changed.setdefault(viewer.name, asyncio.Event())
            with suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), LOOK_INTERVAL)
            try:
                if await run_in_threadpool(self.identify, request) != viewer:
                    break
            except (
                Exception
            ) as error:  # Redis is away: the stream says so itself, and goes on when it is back
                logger.warning("A session can't be looked at: %s", plain(error))
        running.cancel()
