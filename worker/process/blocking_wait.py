"""Waiting for jobs: a blocking move into the worker's own list, and behind it a claim of what it moves."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from redis import Redis
from redis.exceptions import NoScriptError, RedisError, ResponseError, TimeoutError

from packmule.coordination.clock import clock
from packmule.coordination.readable import readable
from packmule.jobs import keys
from packmule.worker.process.claim import NOTHING, Claim, Claims
from packmule.worker.rescue import close_waiting

BLOCK_SECONDS = 4
ANSWER_SECONDS = 2
"""A connection is dead if it gives no answer for this long after its move must have ended."""

UNBLOCK_SECONDS = 0.01

LOOK_SECONDS = 2.5
"""A waiting process wakes this often, so that it knows of a job that arrives whether it was frozen since."""


@dataclass
class _Waiter:
    """A connection that waits on one queue; `claim_id` is set while a move is under way."""

    connection: Any
    client_id: int
    queue: str
    claim_id: str = ""
    until: float = 0.0


class IdleWait:
    """Waits on `queues` (keys), one connection each: a push moves its id into the worker's list.

    The claim of that id is sent together with the move, and the server runs it directly after the move. So a
    pushed job arrives without a further round trip. Its id is in Redis all the time, under the worker's
    lease. `wake` are descriptors that end the wait when they become readable.
    """

    def __init__(
        self, client: Redis, worker: str, claims: Claims, queues: Sequence[str], wake: Sequence[int]
    ) -> None:
        self.client = client
        self.worker = worker
        self.claims = claims
        self.queues = queues
        self.wake = wake
        self._waiters: list[_Waiter] = []
        self._lost: list[tuple[int, str]] = []
        self._looked_at = clock()
        """Until then the moves under way had brought nothing that is unread."""

    def wait(self, seconds: float = BLOCK_SECONDS, paused: Collection[str] = ()) -> Claim:
        """Wait for a push, a readable descriptor, or the end of `seconds`; return what was claimed.

        No move begins on queues (keys) that are `paused`. Moves may still be under way afterwards: `end`
        them, or wait again. If it raises, call `recover`.
        """
        if not self._waiters:
            # Moves on closed connections may go on until the server notices.
            close_waiting(self.client, self.worker)
            self._connect()
        began = clock()
        if not self.is_under_way:
            self._looked_at = began
        for place, waiter in enumerate(self._waiters):
            if not waiter.claim_id and waiter.queue not in paused:
                self._begin(place, waiter)
        sockets = {waiter.connection._sock.fileno(): waiter for waiter in self._waiters if waiter.claim_id}
        watched = [*sockets, *self.wake]
        while True:
            # The clock before each look: the process may be frozen between the two, and a job come meanwhile.
            looked_at = clock()
            arrived = readable(watched, 0)
            if arrived or looked_at >= began + seconds:
                break
            self._looked_at = looked_at
            readable(watched, min(began + seconds - looked_at, LOOK_SECONDS))
        if not arrived and sockets:
            _refuse_silence(min(waiter.until for waiter in sockets.values()))
        return self._read([sockets[each] for each in arrived if each in sockets], looked_at)

    @property
    def is_under_way(self) -> bool:
        """Whether moves are under way, which may bring more jobs."""
        return any(waiter.claim_id for waiter in self._waiters)

    def unread(self) -> set[str]:
        """The ids of claims that may have been made and whose replies have not been read."""
        return {waiter.claim_id for waiter in self._waiters} | {claim_id for _, claim_id in self._lost}

    def arrived(self) -> Claim:
        """What the moves under way have brought until now. If it raises, call `recover`."""
        waiting = {waiter.connection._sock: waiter for waiter in self._waiters if waiter.claim_id}
        looked_at = clock()
        return self._read([waiting[each] for each in readable(waiting, 0)], looked_at)

    def end(self) -> Claim:
        """End the moves under way; return what faster pushes brought. If it raises, call `recover`."""
        waiting = [waiter for waiter in self._waiters if waiter.claim_id]
        self._unblock(waiting)
        unblocked_at = time.monotonic()
        for waiter in waiting:
            # A call that overtook the move that it was to end had no effect.
            while not readable([waiter.connection._sock], UNBLOCK_SECONDS):
                _refuse_silence(unblocked_at + ANSWER_SECONDS)
                self._unblock([waiter])
        return self._read(waiting, clock())

    def recover(self) -> Claim:
        """What moves claimed whose connections are lost; if it raises, call it again."""
        self.close()
        close_waiting(self.client, self.worker)  # from here on they claim no more
        claim = NOTHING
        for place, claim_id in self._lost:
            claim = claim.with_more(self.claims.claim_moved(place, claim_id))
        self._lost.clear()
        return claim

    def close(self) -> None:
        """Close the connections; `recover` returns what moves under way claimed."""
        for place, waiter in enumerate(self._waiters):
            if waiter.claim_id:
                self._lost.append((place, waiter.claim_id))
            with contextlib.suppress(RedisError, OSError):
                waiter.connection.disconnect()
        self._waiters.clear()

    def _begin(self, place: int, waiter: _Waiter) -> None:
        waiter.claim_id = self.claims.next_id()
        waiter.until = time.monotonic() + BLOCK_SECONDS + ANSWER_SECONDS
        move = ("BLMOVE", waiter.queue, keys.waiting_key(self.worker), "LEFT", "RIGHT", BLOCK_SECONDS)
        take = self.claims.command_for_moved(place, waiter.claim_id)
        waiter.connection.send_packed_command(waiter.connection.pack_commands([move, take]))

    def _unblock(self, waiters: Sequence[_Waiter]) -> None:
        with self.client.pipeline(transaction=False) as pipeline:
            for waiter in waiters:
                pipeline.client_unblock(waiter.client_id)
            pipeline.execute()

    def _read(self, waiters: Sequence[_Waiter], looked_at: float) -> Claim:
        """What has been claimed; at `looked_at` nothing had come by the other moves under way.

        Raises `ResponseError` if nothing has been claimed and a move was refused.
        """
        since, self._looked_at = self._looked_at, looked_at
        claim = NOTHING
        refusals: list[ResponseError] = []
        for waiter in waiters:
            moved, claimed = _reply(waiter.connection), _reply(waiter.connection)
            refusals += [
                reply
                for reply in (moved, claimed)
                if isinstance(reply, ResponseError) and not isinstance(reply, NoScriptError)
            ]
            if not isinstance(claimed, ResponseError):  # otherwise the next claim finds what was moved
                claim = claim.with_more(self.claims.read(claimed, since))
        for waiter in waiters:
            waiter.claim_id = ""  # only now: until all are read, all can be recovered
        if refusals and claim.is_empty:
            raise refusals[0]
        return claim

    def _connect(self) -> None:
        pool = self.client.connection_pool
        for queue in self.queues:
            # Not from the pool, which counts all connections that it ever made, and refuses the hundredth.
            connection: Any = pool.connection_class(**pool.connection_kwargs)
            connection.connect()
            connection.send_command("CLIENT", "SETNAME", keys.connection_name(self.worker))
            connection.read_response()
            connection.send_command("CLIENT", "ID")
            self._waiters.append(_Waiter(connection, int(connection.read_response()), queue))
        # A rescue of this worker closes them, so they must be known before an id can arrive.
        ids = " ".join(str(waiter.client_id) for waiter in self._waiters)
        self.client.hset(keys.claims_key(self.worker), keys.WAITERS, ids)


def _refuse_silence(until: float) -> None:
    if time.monotonic() > until:
        raise TimeoutError("a connection that waits for jobs gives no answer")


def _reply(connection: Any) -> Any:
    try:
        return connection.read_response()
    except ResponseError as error:
        return error
