"""The fetcher: it brings jobs to a worker, by a claim or by waiting for a push."""

from __future__ import annotations

import logging
import select
import threading
from collections.abc import Callable, Sequence

from redis import Redis
from redis.exceptions import ResponseError

from packmule.coordination.redis.backoff import UNAVAILABLE, is_transient, retry_until_available
from packmule.jobs import keys
from packmule.worker.order import Order
from packmule.worker.process.blocking_wait import BLOCK_SECONDS, IdleWait
from packmule.worker.process.claim import NOTHING, Claim, Claims
from packmule.worker.process.outcome import Outcome

SUSPENDED_SECONDS = 1.0
PAUSED_SECONDS = 5.0
"""Seconds after which a worker checks paused queues again, though `resume` wakes it, too."""

LONGEST_REASON = 500
"""Characters of an error that a log line has."""

log = logging.getLogger("packmule.worker")


class Fetcher:
    """Claims jobs for `worker` from its queues, which `order` sorts, and waits on `queues` (their keys).

    A call returns once Redis has answered it, however long that takes. Two threads of a worker may call: the
    main one, and the completer's. `wake` are descriptors that end a wait when they become readable.
    """

    def __init__(
        self, client: Redis, worker: str, order: Order, queues: Sequence[str], wake: Sequence[int]
    ) -> None:
        self._claims = Claims(client, worker, order)
        self._idle = IdleWait(client, worker, self._claims, queues, wake)
        self._wake = wake
        self._lock = threading.Lock()

    @property
    def is_waiting(self) -> bool:
        """Whether blocking moves are under way, which may bring more jobs."""
        return self._idle.is_under_way

    def exchange(self, outcomes: Sequence[Outcome], want: int) -> Claim:
        """Acknowledge `outcomes` and claim up to `want` jobs, in one round trip."""
        with self._lock:
            claim_id = self._claims.next_id()
            claim = retry_until_available(lambda: self._claims.finish_and_claim(claim_id, outcomes, want))
            if want and self._idle.is_under_way:
                claim = claim.with_more(self._recovered(self._idle.arrived))
        _log(outcomes, claim.stale)
        return claim

    def wait(self, last: Claim | None, max_idle_time: float | None) -> Claim:
        """Wait for a push or a readable descriptor, as long as the `last` claim suggests; what was claimed.

        If `last` is None, the worker has no room for jobs: only a descriptor ends the wait.
        """
        if last is None or last.suspended:
            select.select(self._wake, [], [], SUSPENDED_SECONDS if last else None)
            return NOTHING
        paused_for = PAUSED_SECONDS if last.paused else None
        spans = (BLOCK_SECONDS, max_idle_time, last.next_due, paused_for)
        span = max(0.0, min(each for each in spans if each is not None))
        paused = {keys.queue_key(name) for name in last.paused}
        return self._recovered(lambda: self._idle.wait(span, paused))

    def stop_waiting(self) -> Claim:
        """End the blocking moves that are under way; what they brought before they ended."""
        with self._lock:
            return self._recovered(self._idle.end) if self._idle.is_under_way else NOTHING

    def recover(self) -> Claim:
        """What blocking moves claimed whose connections were closed."""
        with self._lock:
            return retry_until_available(self._idle.recover)

    def close(self) -> None:
        """Close the connections that wait."""
        self._idle.close()

    def _recovered(self, call: Callable[[], Claim]) -> Claim:
        """What `call` on the waiting connections claimed, even if they are lost meanwhile."""
        try:
            return call()
        except UNAVAILABLE as error:
            # The pool closes it, too, if this worker stalls.
            log.info("a connection that waited for jobs was lost (%s)", error)
        except ResponseError as error:
            if not is_transient(error) and not str(error).startswith("WRONGTYPE"):
                raise  # a key of the wrong type is set aside by the next claim
            log.warning("redis refuses to let this worker wait for jobs (%s)", error)
        return retry_until_available(self._idle.recover)


def _log(outcomes: Sequence[Outcome], stale: Sequence[str]) -> None:
    # The pool may have given back jobs for this worker while it stalled: those are not lost.
    returned = {ended.id for ended in outcomes if ended.status == "queued" and not ended.kind}
    for id in stale:
        if id not in returned:
            log.warning("job %s: its outcome was refused, since the worker's lease had ended", id)
    for ended in outcomes:
        if ended.status == "failed":
            # A job chooses its error's text, so it may hold what a terminal would obey.
            shown = "".join(sign if sign.isprintable() else " " for sign in ended.reason[:LONGEST_REASON])
            log.warning("job %s failed: %s", ended.id, shown)
