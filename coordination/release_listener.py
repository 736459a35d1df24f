"""Hand-over: whoever waits for another hears of its end at once, and looks again from time to time."""

from __future__ import annotations

import random
import select
from collections.abc import Callable, Sequence
from typing import Any

import redis

from packmule.coordination.redis.embedded_server import ServerFailed


class Ear:
    """A subscription to a channel at one server; where that can't be had, waiting is only slower.

    Each of `dials` makes a connection to one, not yet connected, for a timeout in seconds.
    """

    def __init__(self, dials: Sequence[Callable[[float], Any]], channel: str, timeout: float) -> None:
        self._connection: Any = None
        # The last of them, for a release reaches the others before it.
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
        """Return at a release, or after about `pause` seconds, four times that if one would be heard of.

        Chance makes it shorter or longer by half, so that those who collided don't do so again; never longer
        than `longest`.
        """
        hears = self._connection is not None
        seconds = min(longest, pause * (4 if hears else 1) * random.uniform(0.5, 1.5))  # noqa: S311
        poller = select.poll()
        if hears:
            poller.register(self._connection._sock, select.POLLIN)
        if poller.poll(seconds * 1000):
            try:
                self._connection.read_response()
            except (redis.RedisError, OSError):
                self.close()

    def close(self) -> None:
        """End the subscription."""
        if self._connection is not None:
            self._connection.disconnect()
            self._connection = None
