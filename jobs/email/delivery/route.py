"""Routes: the servers in their order, the channels that are kept to each, and the rest of one that failed."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Sequence

from packmule.errors import Error, Unavailable
from packmule.jobs.email.delivery.channel import Channel, Way

FIRST_REST = 1.0
LONGEST_REST = 60.0
"""Seconds for which a server rests after a failure: twice as long after each further one."""


class TemporaryFailure(Unavailable):
    """No server can be reached, or each refuses for now, so a later retry may succeed."""

    def __init__(self, text: str, retry_at: float | None = None) -> None:
        """`retry_at` is the Unix time before which another attempt is in vain, if that is known."""
        super().__init__(text)
        self.retry_at = retry_at


class Route:
    """One way, the idle channels to it, and until when it rests. Threads share it.

    It has no lock: another thread might hold that when this process forks. A deque's own operations are
    atomic, and a failure that is counted twice does no harm.
    """

    def __init__(self, way: Way) -> None:
        self.way = way
        self.failure: Error | None = None
        self._failures = 0
        self._rests_until = 0.0
        self._idle: deque[Channel] = deque()

    @property
    def rest(self) -> float:
        """The seconds for which it still rests."""
        return max(0.0, self._rests_until - time.monotonic())

    def idle(self) -> Channel | None:
        """A kept channel that is usable; the others are closed."""
        while True:
            try:
                channel = self._idle.popleft()
            except IndexError:
                return None
            if channel.is_usable:
                return channel
            channel.close()

    def keep(self, channel: Channel) -> None:
        """Keep an idle channel for the next letter."""
        if channel.is_usable:
            self._idle.append(channel)
        else:
            channel.close()

    def worked(self) -> None:
        """It carried a letter."""
        self._failures = 0
        self.failure = None

    def failed(self, error: Error) -> None:
        """It can't carry letters now: let it rest."""
        self.failure = error
        span = min(FIRST_REST * 2**self._failures, LONGEST_REST)
        self._failures = min(self._failures + 1, 10)
        self._rests_until = time.monotonic() + span * random.uniform(0.5, 1)  # noqa: S311

    def close(self) -> None:
        """Close the kept channels."""
        while (channel := self.idle()) is not None:
            channel.close()


class Routes:
    """Several routes, of which the first that works is taken."""

    def __init__(self, ways: Sequence[Way]) -> None:
        self.routes = [Route(way) for way in ways]

    def take(self) -> tuple[Route, Channel]:
        """A channel of the first server that takes mails, kept or fresh.

        Raises `TemporaryFailure` if one may work later, otherwise what the first said.
        """
        for route in self.routes:
            if (channel := route.idle()) is not None:
                return route, channel
            if route.rest:
                continue
            try:
                return route, route.way.open()
            except Error as error:
                route.failed(error)
        raise self._failure()

    def close(self) -> None:
        """Close all channels."""
        for route in self.routes:
            route.close()

    def _failure(self) -> Error:
        failures = [route.failure for route in self.routes if route.failure is not None]
        may_work = [failure for failure in failures if isinstance(failure, TemporaryFailure)]
        if not may_work:
            return type(failures[0])(str(failures[0]))
        retry_at = time.time() + min(route.rest for route in self.routes)
        others = f" (and {len(failures) - 1} more failed)" if len(failures) > 1 else ""
        return TemporaryFailure(f"{may_work[0]}{others}", retry_at)
