"""Redlock: locks granted for a time by a majority of independent servers, with a fencing token."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import redis

from packmule.coordination.locks import grants
from packmule.coordination.locks.grants import Grant, NoQuorum
from packmule.coordination.locks.lock import SHORTEST_TTL, Lock, LockLost, refuse_ttl
from packmule.coordination.locks.quorum import Quorum, SameServer
from packmule.coordination.release_listener import ReleaseListener
from packmule.coordination.renewal import Renewer
from packmule.errors import Conflict

__all__ = ["Lock", "LockLost", "NoQuorum", "NotAcquired", "Redlock", "SameServer"]


class NotAcquired(Conflict, RuntimeError):
    """Another held the lock for as long as the caller was willing to wait."""


class Redlock:
    """Locks on 1, 3 or 5 independent servers: a lock is held while a majority of them says so.

    With one server, a lock is lost if that server loses its data. `longest_ttl` (seconds) is the highest TTL
    of a lock and must be the same for all users of these servers: a server that may have forgotten locks in a
    restart doesn't vote until it has been up for that long. A server may take `timeout` seconds to answer, or
    four of its round trips where these are longer. `retry` is about how long to wait between two attempts.

    It opens its own connections, one per server, when they are first needed; the clients only say how.
    Threads may share it, and a forked child may go on using it. Raises `ValueError` for an even number of
    servers.

    >>> redlock = Redlock([redis.Redis(host=f"lock{n}") for n in (1, 2, 3)])
    >>> with redlock.acquire("report 7") as lock:  # doctest: +SKIP
    ...     write_report(fence=lock.fence)
    """

    def __init__(
        self,
        clients: Sequence[redis.Redis],
        *,
        longest_ttl: float = 30.0,
        timeout: float = 0.08,
        retry: float = 0.05,
    ) -> None:
        if len(clients) % 2 == 0:
            raise ValueError(
                f"{len(clients)} lock nodes: use 1, 3 or 5: an even number survives no more failures"
            )
        if not (
            SHORTEST_TTL <= longest_ttl < math.inf and 0 < timeout < longest_ttl and 0 < retry < math.inf
        ):
            raise ValueError(
                "longest_ttl, timeout and retry are seconds above zero, and timeout is less than longest_ttl"
            )
        self._quorum = Quorum(clients, longest_ttl, timeout)
        self._renewer = Renewer()
        self._retry = retry

    def acquire(
        self,
        name: str,
        *,
        ttl: float = 10.0,
        wait: float = 10.0,
        renew: bool = True,
        on_lost: Callable[[Lock], object] | None = None,
    ) -> Lock:
        """Take the lock `name` for `ttl` seconds, and renew it in the background if `renew`.

        Tries for `wait` seconds: once with 0, forever with `math.inf`. If a renewal finds the lock lost, it
        calls `on_lost` with the lock, in the renewing thread; it should return quickly. A lock whose object
        is garbage-collected is not renewed.

        Raises `NotAcquired`, `NoQuorum`, `SameServer`, and `ValueError` for invalid arguments.
        """
        if not name:
            raise ValueError("a lock needs a name")
        if not wait >= 0:
            raise ValueError(f"wait is a number of seconds of zero or more, not {wait}")
        if on_lost is not None and not renew:
            raise ValueError("on_lost is called by the renewal, so it needs renew=True")
        refuse_ttl(ttl, self._quorum.longest_ttl)
        gives_up_at = time.monotonic() + wait
        listener: ReleaseListener | None = None
        try:
            while True:
                refusal: Exception
                try:
                    grant = grants.take(self._quorum, name, ttl)
                    if grant is not None:
                        return Lock(self._quorum, grant, ttl, self._renewer if renew else None, on_lost)
                    refusal = NotAcquired(f"{name}: another still holds the lock after {wait:g} s")
                except NoQuorum as error:
                    refusal = error
                left = gives_up_at - time.monotonic()
                if left <= 0:
                    raise refusal
                if listener is None:  # try once more: the release may have come before the subscription
                    dials = [node.connection for node in self._quorum.nodes if node.socket is not None]
                    listener = ReleaseListener(dials, grants.channel(name), self._quorum.dial_within)
                else:
                    listener.wait(self._retry, left)
        finally:
            if listener is not None:
                listener.close()

    def release_of(self, name: str, value: str, fence: int, within: float) -> bool:
        """Release the lock that another process took, which is certainly dead; whether it is free of it now.

        `value` and `fence` are its lock's, which it has left. Does nothing to the lock of a later holder. If
        too few nodes answer `within` so many seconds, the lock may still be held.
        """
        return grants.give_back(self._quorum, Grant(name, value, fence, 0.0), within) is not None

    def faults(self) -> dict[str, str]:
        """The nodes that can't vote now, and why; empty if all can."""
        return self._quorum.faults()

    def close(self) -> None:
        """Close the connections. Held locks stay held until they are released or end."""
        self._quorum.close()
