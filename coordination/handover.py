"""Hand-over: whoever waits for a lock hears of its release at once, and looks again from time to time."""

from __future__ import annotations

import random
import select
from typing import Any

import redis

from coordination.lock_node import Node
from coordination.server import ServerFailed


class Ear:
    """A subscription to a channel at one node; where that can't be had, waiting is only slower."""

    def __init__(self, nodes: list[Node], channel: str, timeout: float) -> None:
        self._connection: Any = None
        # The last of them, for a release reaches the others before it.
        for node in reversed(nodes):
            if node.socket is None:
                continue
            connection = node.connection(timeout)
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
