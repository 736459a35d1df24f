"""Waiting for work: a blocking move into the worker's own list, so that one push wakes one worker."""

from __future__ import annotations

import contextlib
import select
from collections.abc import Sequence
from typing import Any

from redis import Redis
from redis.exceptions import ConnectionError, RedisError, TimeoutError

BLOCK_SECONDS = 10


class IdleWait:
    """Waits on `queues` (keys) at once, one connection each, and lets a push move its id to `waiting`.

    The id is in Redis all the time, under the worker's lease. `wake` are descriptors that end the wait
    when they become readable.
    """

    def __init__(self, client: Redis, queues: Sequence[str], waiting: str, wake: Sequence[int]) -> None:
        self.client = client
        self.queues = queues
        self.waiting = waiting
        self.wake = wake
        self._connections: list[tuple[Any, int]] = []

    def wait(self, seconds: float = BLOCK_SECONDS) -> None:
        """Return when an id has been moved, a descriptor is readable, or `seconds` are over."""
        try:
            self._wait(seconds)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connections; a move that is under way ends in the waiting list or not at all."""
        for connection, _ in self._connections:
            with contextlib.suppress(RedisError, OSError):
                connection.disconnect()
        self._connections.clear()

    def _wait(self, seconds: float) -> None:
        if not self._connections:
            self._connect()
        by_socket = {}
        for queue, (connection, client_id) in zip(self.queues, self._connections, strict=True):
            connection.send_command("BLMOVE", queue, self.waiting, "LEFT", "RIGHT", seconds)
            by_socket[connection._sock.fileno()] = (connection, client_id)
        readable, _, _ = select.select([*by_socket, *self.wake], [], [], seconds + 1)
        blocked = [entry for socket, entry in by_socket.items() if socket not in readable]
        if blocked:
            with self.client.pipeline(transaction=False) as pipeline:
                for _, client_id in blocked:
                    pipeline.client_unblock(client_id)
                pipeline.execute()
        for connection, _ in self._connections:
            # Whatever each move brought is in the waiting list by now.
            connection.read_response()

    def _connect(self) -> None:
        pool = self.client.connection_pool
        for _ in self.queues:
            connection: Any = pool.make_connection()
            connection.connect()
            connection.send_command("CLIENT", "ID")
            self._connections.append((connection, int(connection.read_response())))


AWAY = (ConnectionError, TimeoutError)
"""What redis-py raises while the server can't be reached; a server that is loading its data counts too."""
