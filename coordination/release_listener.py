"""Waiting for a release: the holder publishes it, and the waiter also looks again from time to time."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import redis

from packmule.coordination.readable import readable
from packmule.coordination.redis.embedded_server import ServerFailed


class ReleaseListener:
    """A subscription to a release channel at one server; without one, a waiter only polls more often.

    Each of `dials` returns a new, unconnected connection to one server, given a timeout in seconds.
    """

    def __init__(self, dials: Sequence[Callable[[float], Any]], channel: str, timeout: float) -> None:
        self._connection: Any = None
        # The last server first: a release reaches all others before it.
        for dial in reversed(dials):
            connection = dial(timeout)
            try:
                connection.connect()
                connection.send_command("SUBSCRIBE", channel, check_health=False)
                connection.read_response()
            except (redis.RedisError, OSError, ServerFailed):
                connection.disconnect()
                continue
            self._connection = connection
            return

    def wait(self, pause: float, longest: float) -> None:
        """Return at a release, or after about `pause` seconds (four times that while subscribed).

        The span varies at random by half, so that waiters that collided don't collide again; it never exceeds
        `longest`.
        """
        subscribed = self._connection is not None
        seconds = min(longest, pause * (4 if subscribed else 1) * random.uniform(0.5, 1.5))  # noqa: S311
        if readable([self._connection._sock] if subscribed else [], seconds):
            try:
                self._connection.read_response()
            except (redis.RedisError, OSError):
                self.close()

    def close(self) -> None:
        """End the subscription."""
        if self._connection is not None:
            self._connection.disconnect()
            self._connection = None
