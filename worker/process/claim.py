"""Claiming: one round trip acknowledges outcomes and brings the next jobs."""

from __future__ import annotations

import itertools
import math
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, cast

import msgspec
from redis import Redis

from packmule.coordination.clock import clock
from packmule.coordination.redis.replies import UNREADABLE, as_text
from packmule.coordination.redis.scripts import Script
from packmule.jobs import keys, wire
from packmule.jobs.options import DEFAULT_RESULT_TTL, DEFAULT_TIMEOUT
from packmule.worker.order import Order
from packmule.worker.process import claimed
from packmule.worker.process.claimed import FURTHEST, Claimed, Row
from packmule.worker.process.outcome import Outcome, corrupt
from packmule.worker.process.saying import Words
from packmule.worker.process.statistics import Statistics
from packmule.worker.rescue import rescue

LEASE_INTERVAL = 1.0
"""Seconds between renewals of the lease by claims, which complement the heartbeat's."""

MOST = 64
"""Jobs that one claim takes at most, unless a worker is told otherwise."""

HEAD, WIDTH = 7, 8
"""Values of the script's reply in front of its jobs, and of each job."""

LONG_TTL = 60
"""Seconds: a job whose record is kept for less leaves a trace (`gone.lua`)."""

_finish_and_claim = Script("worker.process", "finish_and_claim")
_say = Script("worker.process", "say")
_pack = msgspec.msgpack.Encoder().encode
_queue_key = lru_cache(keys.queue_key)


class Claim(NamedTuple):
    """What one call returned.

    `jobs` are claimed now; `unreadable` are the outcomes of claimed jobs whose records are corrupt. `stale`
    are ids whose outcomes were refused, since this worker's lease had ended. `parents` are ids of ended jobs
    with dependents, and `flows` those of flows in which a change has yet to reach nodes. While `suspended`
    (by `rq suspend`) nothing is claimed, nor ever from `paused` queues. In `next_due` seconds jobs that wait
    for a limit may go on, and this worker should claim again then. It
    `is_forgotten` if RQ no longer knows it: it was taken for dead, or the server lost its data. Nothing was
    claimed before the instant `since` of `clock`. If `history_is_lost`, the server has forgotten the last
    call, as after a failover or from a backup. The first `callbacks` of the jobs are callbacks that are due.
    """

    jobs: list[Claimed]
    unreadable: list[Outcome]
    stale: list[str]
    parents: list[str]
    suspended: bool
    paused: frozenset[str] = frozenset()
    next_due: float | None = None
    is_forgotten: bool = False
    since: float = math.inf
    history_is_lost: bool = False
    callbacks: int = 0
    flows: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing was claimed."""
        return not self.jobs and not self.unreadable

    def with_more(self, more: Claim) -> Claim:
        """This claim and another as one, of which no job is a callback."""
        return Claim(
            self.jobs + more.jobs,
            self.unreadable + more.unreadable,
            self.stale + more.stale,
            self.parents + more.parents,
            self.suspended or more.suspended,
            self.paused | more.paused,
            more.next_due if self.next_due is None else self.next_due,
            self.is_forgotten or more.is_forgotten,
            min(self.since, more.since),
            self.history_is_lost or more.history_is_lost,
            self.callbacks,
            self.flows + more.flows,
        )


def assemble() -> None:
    """Assemble the claim's script, once for all processes that this one forks later."""
    _finish_and_claim.command((), ())


NOTHING = Claim([], [], [], [], False)


class Claims:
    """Claims jobs for `worker` from its queues, in the order that `order` gives.

    Results of jobs that don't say how long they are kept live for `result_ttl` seconds. `machine` names that
    on which it runs, by default by its host.
    """

    def __init__(
        self,
        client: Redis,
        worker: str,
        order: Order,
        result_ttl: int = int(DEFAULT_RESULT_TTL),
        machine: str = "",
    ) -> None:
        self.client = client
        self.worker = worker
        self.order = order
        self.result_ttl = result_ttl
        self.host = keys.host_name(machine)
        self._keys = (
            keys.claims_key(worker),
            keys.waiting_key(worker),
            keys.worker_key(worker),
            keys.LEASES,
            keys.SUSPENDED,
        )
        self.next_id = map(f"{secrets.token_hex(4)}{{:x}}".format, itertools.count(1)).__next__
        """An id for one claim; a second claim with the same id returns the same jobs."""
        self._leased_at = 0.0
        self._last = ""
        self._held: dict[str, Claimed | None] = {}
        self.statistics = Statistics()
        self.skipped: set[str] = set()
        """Queues from which nothing is claimed for now."""
        self.expect: Callable[[Claimed], object] = lambda job: None
        """Called with each claimed job of which words of an earlier run are kept."""
        self._added = ""
        """The claim id of the call whose outcomes were last added to the statistics."""

    def finish_and_claim(self, claim_id: str, outcomes: Sequence[Outcome], want: int) -> Claim:
        """Acknowledge `outcomes` and claim up to `want` jobs: one round trip.

        If the reply was lost, call it again with the same `claim_id`: no job is lost or claimed twice.
        """
        now, since = time.time(), clock()
        is_due = now - self._leased_at > LEASE_INTERVAL
        request = self._request(".claim", claim_id, self._last, want, now, is_due, outcomes)
        # An acknowledgement without a claim must not use up a queue's turn.
        order = [each for each in self.order.next() if each not in self.skipped] if want else ()
        key_names = [*self._keys, *map(_queue_key, order)]
        statistics = self.statistics
        if claim_id != self._added:
            self._added = claim_id
            statistics.add(outcomes, self._held)
        counts, *entries = statistics.to_send(has_time=not want)
        claim = self.read(_finish_and_claim(self.client, key_names, [request, counts, *entries]), since)
        if entries:
            statistics.clear_index()
        if claim.stale:
            statistics.add([each for each in outcomes if each.id in claim.stale], self._held, -1)
        elif counts:
            statistics.clear()
        for ended in outcomes:
            self._held.pop(ended.execution, None)
        self._leased_at = now if is_due else self._leased_at
        self._last = claim_id
        return claim

    def say(self, words: Sequence[Words]) -> list[str]:
        """Write what jobs have said that are still claimed; the executions of the others."""
        request = _pack((self.worker, wire.time_text(time.time()), words))
        return _texts(_say(self.client, self._keys[:1], [request]))

    def send_statistics(self) -> None:
        """Send what was added to the statistics, before this worker leaves. Raises redis-py's errors."""
        if self.statistics.due_in is not None:
            self.statistics.hasten()
            self.finish_and_claim(self.next_id(), (), 0)

    def give_up_unheld(self, under_way: Callable[[], Collection[str]]) -> list[str]:
        """Return jobs that the claims name and this worker doesn't hold: a server has lost their end.

        `under_way` returns the ids of claims whose replies have not been read. Returns the ids of the jobs.
        """
        claims = cast(dict[bytes, bytes], self.client.hgetall(self._keys[0]))
        named = [as_text(execution) for id, execution in claims.items() if not id.startswith(b".")]
        unread = under_way()
        unheld = [each for each in named if each.rpartition("-")[0] not in unread and each not in self._held]
        if not unheld:
            return []
        return rescue(self.client, self.worker, "returned", executions=unheld, scope="named").back

    def command_for_moved(self, place: int, claim_id: str) -> tuple[Any, ...]:
        """The command that claims one job of the waiting list; send it behind a blocking move into that list.

        Claims of several places may be under way at once, beside that of `finish_and_claim`.
        """
        return _finish_and_claim.command(self._keys, [self._request_for_moved(place, claim_id), ""])

    def claim_moved(self, place: int, claim_id: str) -> Claim:
        """Claim what `command_for_moved` claims, or claimed before its reply was lost."""
        request, since = [self._request_for_moved(place, claim_id), ""], clock()
        return self.read(_finish_and_claim(self.client, self._keys, request), since)

    def _request_for_moved(self, place: int, claim_id: str) -> bytes:
        return self._request(f".claim{place}", claim_id, "", 1, time.time(), False, ())

    def _request(
        self,
        mark: str,
        claim_id: str,
        last: str,
        want: int,
        now: float,
        is_due: bool,
        outcomes: Sequence[Outcome],
    ) -> bytes:
        """What the script takes; it renews the lease if that `is_due`."""
        others, rows = _in_rows(outcomes)
        said = wire.time_text(now)
        wanted = mark, claim_id, last, want, self.worker, said, keys.LEASE_SECONDS, is_due
        return _pack((*wanted, others, rows, self.host))

    def read(self, reply: Sequence[Any], since: float) -> Claim:
        """The claim in a reply of the script, none of whose jobs was claimed before the instant `since`."""
        suspended, next_due, is_forgotten, has_lost, stale, parents, paused = reply[:HEAD]
        jobs: list[Claimed] = []
        unreadable: list[Outcome] = []
        callbacks = 0
        for first in range(HEAD, len(reply), WIDTH):
            row = Row(*reply[first : first + WIDTH])
            try:
                job = _read(row, self.result_ttl)
                self._held[job.execution] = job
                jobs.append(job)
                if job.has_said:
                    self.expect(job)
                if row.due:
                    callbacks += 1
            except (ValueError, *UNREADABLE) as error:
                unreadable.append(corrupt(row, error, time.time()))
                self._held[unreadable[-1].execution] = None
        return Claim(
            jobs,
            unreadable,
            _texts(stale or ()),
            _texts(each for each in parents or () if isinstance(each, bytes)),
            suspended == 1,
            frozenset(_texts(paused or ())),
            float(next_due) if next_due else None,
            is_forgotten == 1,
            since,
            has_lost == 1,
            callbacks,
            tuple(as_text(each[0]) for each in parents or () if isinstance(each, list)),
        )


def _read(row: Row, result_ttl: int) -> Claimed:
    """The job in a row. Raises `ValueError` if it is corrupt."""
    timeout, rare, batch = float(row.timeout or DEFAULT_TIMEOUT), row.rare, ""
    if rare is not None and len(rare) == 2 and rare[0] == b"batch":  # noqa: PLR2004  a name and a value
        batch, rare = rare[1].decode(), None
    if rare is None and not row.due and row.queue and abs(timeout) <= FURTHEST:
        id, execution, queue = row.id.decode(), row.execution.decode(), row.queue.decode()
        at = row.enqueued_at
        return Claimed(id, execution, queue, row.data, timeout, result_ttl, enqueued_at=at, batch=batch)
    return claimed.read(row, result_ttl)


def _texts(values: Iterable[bytes]) -> list[str]:
    return [as_text(value) for value in values]


def _in_rows(outcomes: Sequence[Outcome]) -> tuple[list[Outcome], list[Any]]:
    """Outcomes for `finish_and_claim.lua`: those of jobs that finished and need nothing else are in rows."""
    others: list[Outcome] = []
    rows: list[Any] = []
    for each in outcomes:
        is_kept = each.ttl >= LONG_TTL or each.ttl < 0
        if (
            each.status == "finished"
            and is_kept
            and not (each.fields or each.limits or each.callback or each.said)
        ):
            rows += (
                each.id, each.execution, each.queue, each.ttl, each.started_at, each.ended_at, each.began,
                each.ended, each.value, each.is_marked, float(each.began), float(each.ended), each.batch,
            )  # fmt: skip
        else:
            others.append(each)
    return others, rows
