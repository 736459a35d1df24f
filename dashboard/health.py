"""Health: whether the dashboard answers, and Redis, too; for probes, without a login and without waiting."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from packmule.coordination.redis.connection_kinds import Unanswered

if TYPE_CHECKING:
    from redis import Redis

PATIENCE = 1.0
"""Seconds that Redis has for an answer to a probe."""


class Pulse:
    """Asks Redis whether it is there, in a thread of its own, since those of pages may all be waiting.

    Whoever asks meanwhile shares the answer, and waits no longer than the first one would.

    >>> await Pulse(client).check(patience=1.0)  # doctest: +SKIP
    """

    def __init__(self, client: Redis) -> None:
        self.client = client
        self._lock = threading.Lock()
        self._answer: Future[Exception | None] | None = None
        self._asked_at = 0.0

    async def check(self, patience: float) -> None:
        """Return if Redis answers. Raises redis-py's errors, and `Unanswered` after `patience` seconds."""
        with self._lock:
            if self._answer is None or self._answer.done():
                self._answer, self._asked_at = Future(), time.monotonic()
                task = (self._answer,)
                threading.Thread(target=self._ask, args=task, name="packmule-pulse", daemon=True).start()
            answer, left = self._answer, self._asked_at + patience - time.monotonic()
        try:
            async with asyncio.timeout(max(0.0, left)):
                error = await asyncio.shield(asyncio.wrap_future(answer))
        except TimeoutError:
            raise Unanswered(f"Redis gave no answer within {patience:g} s") from None
        if error:
            raise error

    def _ask(self, answer: Future[Exception | None]) -> None:
        try:
            self.client.ping()
        except Exception as error:
            answer.set_result(error)
        else:
            answer.set_result(None)


async def health(request: Request) -> Response:
    """`/health`: 200 if Redis answers, else 503."""
    pulse: Pulse = request.app.state.pulse
    await pulse.check(PATIENCE)
    return PlainTextResponse("ok\n")


ROUTES = [Route("/health", health, name="health")]
