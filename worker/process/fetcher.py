"""The fetcher: it brings jobs to a worker, by a claim or by waiting for a push."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

from redis import Redis
from redis.exceptions import RedisError, ResponseError

from packmule.coordination.readable import readable
from packmule.coordination.redis.backoff import UNAVAILABLE, is_transient, retry_until_available
from packmule.jobs import keys
from packmule.jobs.options import DEFAULT_RESULT_TTL
from packmule.worker.order import Order
from packmule.worker.process.blocking_wait import BLOCK_SECONDS, IdleWait
from packmule.worker.process.claim import MOST, NOTHING, Claim, Claims
from packmule.worker.process.job_log import JobLog
from packmule.worker.process.outcome import Outcome
from packmule.worker.process.saying import Saying

SUSPENDED_SECONDS = 1.0
PAUSED_SECONDS = 5.0
"""Seconds after which a worker checks paused queues again, though `resume` wakes it, too."""

SKIPPED_SECONDS = 0.5
"""Seconds after which a worker checks queues again whose isolated job had no room in the pool."""

LONGEST_CLAIM = 0.01
"""Seconds that the jobs of one claim should take together, so that none waits long behind the others."""

log = logging.getLogger("packmule.worker")


class Fetcher:
    """Claims jobs for `worker` from `queues` as `order` says: it owns the claims and the blocking moves.

    A call returns once Redis has answered it, however long that takes. If its reply is lost, it's sent again
    under the same claim id, for which the script returns the same jobs. No other call has that id.

    An idle worker waits by blocking moves, one connection for each queue. A push ends a move: the server puts
    the id into the worker's waiting list, and runs the claim that was sent behind the move. If the process
    dies in between, a rescue finds the id in the waiting list. If the connection is lost, that claim, too, is
    sent again under its id.

    The performing thread calls `exchange` and `wait`; any thread may call the others. `wake` are descriptors
    that end a wait when they become readable. `answered` is called with each reply that names parents (ended
    jobs on which others depend), or a forgotten worker. Whoever holds the fetcher's lock takes no other.
    """

    def __init__(
        self,
        client: Redis,
        worker: str,
        order: Order,
        queues: Sequence[str],
        wake: Sequence[int],
        answered: Callable[[Claim], object],
        job_log: JobLog,
        most: int = MOST,
        result_ttl: int = int(DEFAULT_RESULT_TTL),
        job_log_level: int = logging.INFO,
        machine: str = "",
    ) -> None:
        self._claims = Claims(client, worker, order, result_ttl, machine)
        self._idle = IdleWait(client, worker, self._claims, [keys.queue_key(each) for each in queues], wake)
        self.skipped = self._claims.skipped
        """Queues that have nothing to give to this worker for now; it adds and removes their names."""
        self._wake = wake
        self._answered = answered
        self._job_log = job_log
        self.saying = Saying(self.say, job_log_level)
        self._claims.expect = self.saying.expect
        self._size = ClaimSize(most)
        self._lock = threading.Lock()
        self._last = self._arrived = NOTHING  # the last reply to a claim, and what a wait brought since
        self._begun, self._begun_at = 0, 0.0  # how many jobs `exchange` returned, and when
        self._waits = False
        self.has_moves = False
        """Whether blocking moves are under way, which may bring more jobs."""

    def exchange(self, outcomes: Sequence[Outcome], room: int) -> Claim:
        """Acknowledge `outcomes` and claim what there is room for, in one round trip.

        Without outcomes and without room it sends no call. If a wait has brought jobs, return those and claim
        no others.
        """
        if self._begun:
            self._size.learn(self._begun, time.monotonic() - self._begun_at)
        claim = self._arrived
        if not room and self.has_moves:
            # So that none brings a job while there is no room; what one brings anyway is given back.
            self._arrived = claim = claim.with_more(self.stop_waiting())
        if claim is NOTHING:
            if room:
                claim = self._last = self._call(outcomes, min(room, self._size.size))
            elif outcomes:
                claim = self._call(outcomes, 0)
        else:
            self._arrived = NOTHING
            if outcomes:
                claim = self._call(outcomes, 0).with_more(claim)
        self._begun = len(claim.jobs)
        if self._begun:
            self._begun_at = time.monotonic()
        return claim

    def acknowledge(self, outcomes: Sequence[Outcome]) -> Claim:
        """Acknowledge `outcomes` and claim no job; return the callbacks that are due now because of them."""
        return self._call(outcomes, 0)

    def say(self, over: str = "") -> None:
        """Send what running jobs have said, as far as this worker still has them. Any thread may call it.

        The execution `over` says nothing more: it ends without an outcome.
        """
        with self._lock:
            self._say()
            self.saying.forget([over])

    def wait(self, room: int, longest: float | None) -> bool:
        """Wait for a push, a readable descriptor, or `longest`; whether jobs came, which `exchange` returns.

        It's shorter if the last claim found a pause, or jobs that a limit lets go on soon. Without `room` for
        jobs only a descriptor ends it.
        """
        last = self._last
        if not room or last.suspended:
            readable(self._wake, SUSPENDED_SECONDS if room else None)
            return False
        paused_for = PAUSED_SECONDS if last.paused else None
        skipped_for = SKIPPED_SECONDS if self.skipped else None
        spans = (
            BLOCK_SECONDS, longest, last.next_due, paused_for, skipped_for, self._claims.statistics.due_in,
        )  # fmt: skip
        span = max(0.0, min(each for each in spans if each is not None))
        paused = {keys.queue_key(name) for name in (*last.paused, *self.skipped)}
        with self._lock:
            self._waits = True
        arrived = self._recovered(lambda: self._idle.wait(span, paused))
        with self._lock:
            self._waits = False
            self.has_moves = self._idle.is_under_way
        self._arrived = NOTHING if arrived.is_empty else arrived
        return not arrived.is_empty

    def stop_waiting(self) -> Claim:
        """End the blocking moves that are under way; what they brought before they ended.

        While the performing thread waits this does nothing.
        """
        with self._lock:
            if self._waits or not self.has_moves:
                return NOTHING
            brought = self._recovered(self._idle.end)
            self.has_moves = False
            return brought

    def close(self) -> None:
        """Close the connections that wait, and send the last statistics if Redis is available."""
        self._idle.close()
        with contextlib.suppress(RedisError):
            self._claims.send_statistics()

    def _call(self, outcomes: Sequence[Outcome], want: int) -> Claim:
        with self._lock:
            if self.saying.spoken:
                if self.saying.is_too_much(outcomes):
                    self._say()
                outcomes = self.saying.added_to(outcomes)
            claim_id = self._claims.next_id()
            try:
                claim = self._claims.finish_and_claim(claim_id, outcomes, want)
            except (*UNAVAILABLE, ResponseError):  # the same again, for as long as that may help
                claim = retry_until_available(lambda: self._claims.finish_and_claim(claim_id, outcomes, want))
            if want and self.has_moves:
                claim = claim.with_more(self._recovered(self._idle.arrived))
                self.has_moves = self._idle.is_under_way
            if claim.history_is_lost:
                self._give_up_unheld()
        if self._job_log.finished:
            self._job_log.flush()
        if claim.parents or claim.flows or claim.is_forgotten:
            self._answered(claim)
        if claim.stale:
            _log_stale(outcomes, claim.stale)
        return claim

    def _say(self) -> None:
        executions = list(self.saying.spoken)
        try:
            while words := self.saying.waiting(executions):
                self.saying.forget(retry_until_available(partial(self._claims.say, words)))
        except RedisError as error:
            log.warning("what jobs said was not stored: %s", error)

    def _give_up_unheld(self) -> None:
        """Give back what the claims name and this worker doesn't hold: the server has forgotten its end."""
        back = retry_until_available(lambda: self._claims.give_up_unheld(self._idle.unread))
        if back:
            log.warning("redis has lost its last moments: %d jobs whose end it forgot run again", len(back))

    def _recovered(self, call: Callable[[], Claim]) -> Claim:
        """What `call` on the waiting connections claimed, even if they are lost meanwhile."""
        try:
            return call()
        except UNAVAILABLE as error:
            # The pool closes it, too, if this worker stalls.
            log.debug("a connection that waited for jobs was lost (%s)", error)
        except ResponseError as error:
            if not is_transient(error) and not str(error).startswith("WRONGTYPE"):
                raise  # a key of the wrong type is set aside by the next claim
            log.warning("redis refuses to let this worker wait for jobs (%s)", error)
        return retry_until_available(self._idle.recover)


class ClaimSize:
    """The size of the next claim: 1 at first, more while jobs are short."""

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self.size = 1

    def learn(self, jobs: int, seconds: float) -> None:
        """Adjust to `jobs` jobs that took `seconds` in all: at most double, or fall to what fits."""
        fitting = int(LONGEST_CLAIM * jobs / seconds) if seconds > 0 else self.most
        self.size = max(1, min(fitting, self.size * 2, self.most))


def _log_stale(outcomes: Sequence[Outcome], stale: Sequence[str]) -> None:
    # The pool may have given back jobs for this worker while it stalled: those are not lost.
    returned = {ended.id for ended in outcomes if ended.status == "queued" and not ended.kind}
    for id in stale:
        if id not in returned:
            log.warning("job %s: its outcome was refused, since the worker's lease had ended", id)
