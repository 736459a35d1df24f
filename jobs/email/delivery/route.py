"""Routes: the servers in their order, the channels that are kept to each, and the rest of one that failed."""

from __future__ import annotations

import os
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from weakref import WeakKeyDictionary

from redis import Redis

from packmule.coordination.limits.concurrency import ConcurrencyLimit, NoFreeSlot, Slot
from packmule.coordination.limits.rate_limit import TokenBucket
from packmule.errors import Error, Unavailable
from packmule.jobs.email.delivery.channel import Channel, Way
from packmule.jobs.email.delivery.pace import NO_LIMIT

FIRST_REST = 1.0
LONGEST_REST = 60.0
LEASE = 60.0
"""Seconds for which a server rests after a failure: twice as long after each further one."""


class TemporaryFailure(Unavailable):
    """No server can be reached, or each refuses for now, so a later retry may succeed."""

    recipient = ""
    """The one at whose address the server hung up, if it did that."""

    def __init__(self, text: str, retry_at: float | None = None) -> None:
        """`retry_at` is the Unix time before which another attempt is in vain, if that is known."""
        super().__init__(text)
        self.retry_at = retry_at


class Busy(TemporaryFailure):
    """All servers that work have as many mails or connections as their limits allow."""


class Route:
    """One way, the idle channels to it, and until when it rests. Threads share it.

    Through `redis` all processes share the limits of its way. A slot is held for `LEASE` seconds after it was
    last renewed, so a connection that waits longer for its server's answer may be counted no more.

    It has no lock: another thread might hold that when this process forks. A deque's own operations are
    atomic, and a failure that is counted twice does no harm.
    """

    def __init__(self, way: Way, redis: Redis | None = None) -> None:
        self.way = way
        self._slots = self._rate = None
        if redis is not None and way.limits.connections:
            self._slots = ConcurrencyLimit(redis, "mail", way.limits.connections, LEASE)
        if redis is not None and way.limits.rate is not None:
            self._rate = TokenBucket(redis, "mail-server", way.limits.rate)
        self._held: WeakKeyDictionary[Channel, Slot] = WeakKeyDictionary()
        self.failure: Error | None = None
        self._failures = 0
        self._rests_until = 0.0
        self._idle: deque[Channel] = deque()

    @property
    def rest(self) -> float:
        """The seconds for which it still rests."""
        return max(0.0, self._rests_until - time.monotonic())

    @property
    def has_idle(self) -> bool:
        """Whether a kept channel is usable."""
        return any(channel.is_usable for channel in self._idle.copy())

    def idle(self) -> Channel | None:
        """A kept channel that is usable; the others are closed."""
        while True:
            try:
                channel = self._idle.popleft()
            except IndexError:
                return None
            if self.is_usable(channel):
                return channel
            self._leave(channel)

    def keep(self, channel: Channel) -> None:
        """Keep an idle channel for the next letter."""
        if channel.is_usable:
            self._idle.append(channel)
        else:
            self._leave(channel)

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
            self._leave(channel)

    @property
    def is_limited(self) -> bool:
        """Whether each letter must be allowed, so that none can be announced."""
        return self._rate is not None

    def open(self) -> Channel:
        """A fresh channel. Raises `Busy`, and what the way does."""
        if self._slots is None:
            return self.way.open()
        try:
            slot = self._slots.acquire(str(self.way))
        except NO_LIMIT:
            return self.way.open()
        except NoFreeSlot as error:
            at_once = self.way.limits.connections
            raise Busy(
                f"{self.way} already uses all of its {at_once} connections", time.time() + error.retry_after
            ) from None
        try:
            channel = self.way.open()
        except BaseException:
            self._slots.release(slot)
            raise
        self._held[channel] = slot
        return channel

    def admit(self) -> None:
        """Count one more letter. Raises `Busy`."""
        if self._rate is None:
            return
        with suppress(*NO_LIMIT):
            answer = self._rate.hit(str(self.way))
            if not answer.allowed:
                raise Busy(f"{self.way} is limited to {self._rate.rate}", time.time() + answer.retry_after)

    def is_usable(self, channel: Channel) -> bool:
        """Whether a channel can carry one more letter, and still has its slot."""
        if not channel.is_usable:
            return False
        slot = self._held.get(channel)
        if self._slots is None or slot is None or slot.until - time.monotonic() > LEASE / 2:
            return True
        try:
            renewed = self._slots.renew(slot)
        except NO_LIMIT:
            return True
        if renewed is not None:
            self._held[channel] = renewed
        return renewed is not None

    def _leave(self, channel: Channel) -> None:
        channel.close()
        slot = self._held.pop(channel, None)
        if self._slots is not None and slot is not None and channel.process == os.getpid():
            with suppress(*NO_LIMIT):
                self._slots.release(slot)


class Routes:
    """Several routes, of which the first that works is taken."""

    def __init__(self, ways: Sequence[Way], redis: Redis | None = None) -> None:
        self.routes = [Route(way, redis) for way in ways]

    @property
    def is_open(self) -> bool:
        """Whether `take` has a kept channel, unless another thread is faster."""
        for route in self.routes:
            if route.has_idle or not route.rest:
                return route.has_idle
        return False

    def take(self, before_opening: Callable[[], None]) -> tuple[Route, Channel]:
        """A channel of the first server that takes mails, kept or fresh.

        Raises `Busy` if one works but has reached its limits, `TemporaryFailure` if one may work later,
        otherwise what the first said.
        """
        busy: list[Busy] = []
        for route in self.routes:
            if (channel := route.idle()) is not None:
                return route, channel
            if route.rest:
                continue
            before_opening()
            try:
                return route, route.open()
            except Busy as error:
                busy.append(error)
            except Error as error:
                route.failed(error)
        if busy:
            raise min(busy, key=lambda error: error.retry_at or 0)
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
