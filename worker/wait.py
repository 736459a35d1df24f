"""Waiting for work: a blocking move into the worker's own list, so that one push wakes one worker."""

from __future__ import annotations

import contextlib
import select
from collections.abc import Sequence
from typing import Any

from redis import Redis
from redis.exceptions import RedisError, ResponseError

from coordination.scripts import Script
from jobs import wire
from worker.rescue import close_waiting

BLOCK_SECONDS = 25
LATE_SECONDS = 0.01

_put_back = Script("worker", "put_back")


class IdleWait:
    """Waits on `queues` (keys), one connection each, and lets a push move its id to the worker's list.

    The id is in Redis all the time, under the worker's lease. `wake` are descriptors that end the wait
    when they become readable.
    """

    def __init__(self, client: Redis, worker: str, queues: Sequence[str], wake: Sequence[int]) -> None:
        self.client = client
        self.worker = worker
        self.queues = queues
        self.wake = wake
        self._connections: list[tuple[Any, int, str]] = []
        self._blocked: list[tuple[Any, int, str]] = []

    def wait(self, seconds: float = BLOCK_SECONDS) -> bool:
        """Return when an id has been moved, a descriptor is readable, or `seconds` are over.

        True after an id was moved. Moves may still be under way then: end those of `blocked`, or go on.
        """
        try:
            return self._wait(seconds)
        except BaseException:
            self.close()
            raise

    @property
    def blocked(self) -> list[int]:
        """The ids of connections that wait, to be sent a `CLIENT UNBLOCK` before a job may take its time."""
        return [client_id for _, client_id, _ in self._blocked]

    def unblocked(self) -> None:
        """Take note that all have been sent a `CLIENT UNBLOCK`, which a claim followed at once.

        One that reached the server before the move that it was to end has no effect: it is sent again, and
        what such a move brings after the claim goes back.
        """
        try:
            late = False
            while self._blocked:
                connection, client_id, queue = self._blocked[-1]
                if not select.select([connection._sock], [], [], LATE_SECONDS)[0]:
                    late = True
                    self.client.client_unblock(client_id)
                    continue
                self._blocked.pop()
                moved = None
                with contextlib.suppress(ResponseError):  # a move that was refused brought nothing
                    moved = connection.read_response()
                if late and moved is not None:
                    _put_back(self.client, [wire.waiting_key(self.worker), queue], [moved])
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connections; a move that is under way ends in the waiting list or not at all."""
        for connection, _, _ in self._connections:
            with contextlib.suppress(RedisError, OSError):
                connection.disconnect()
        self._connections.clear()
        self._blocked.clear()

    def _wait(self, seconds: float) -> bool:
        waiting = wire.waiting_key(self.worker)
        if not self._connections:
            # Moves on connections that were closed may go on until the server has noticed.
            close_waiting(self.client, self.worker)
            self._connect()
            if self.client.llen(waiting):
                return True
        for entry in self._connections:
            if entry not in self._blocked:
                entry[0].send_command("BLMOVE", entry[2], waiting, "LEFT", "RIGHT", seconds)
                self._blocked.append(entry)
        sockets = {entry[0]._sock.fileno(): entry for entry in self._blocked}
        readable, _, _ = select.select([*sockets, *self.wake], [], [], seconds + 1)
        moved = False
        for socket in readable:
            if socket in sockets:
                self._blocked.remove(sockets[socket])
                moved |= sockets[socket][0].read_response() is not None
        return moved

    def _connect(self) -> None:
        pool = self.client.connection_pool
        for queue in self.queues:
            connection: Any = pool.make_connection()
            connection.connect()
            connection.send_command("CLIENT", "SETNAME", wire.connection_name(self.worker))
            connection.read_response()
            connection.send_command("CLIENT", "ID")
            self._connections.append((connection, int(connection.read_response()), queue))
        # Whoever rescues from this worker closes them, so they must be known before an id can arrive.
        ids = " ".join(str(client_id) for _, client_id, _ in self._connections)
        self.client.hset(wire.claims_key(self.worker), wire.WAITERS, ids)
