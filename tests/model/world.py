"""The world of the model: one server, some workers that the test moves by hand, and what became of jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from hypothesis import note
from redis import Redis

from packmule.jobs import keys, wire
from packmule.jobs.client import Client
from packmule.jobs.interrupts import Waiting
from packmule.jobs.registry import find
from packmule.tests.model import keyspace
from packmule.tests.model.clock import Clock
from packmule.tests.model.invariants import Allowed, lost_signals, silent_changes, violations
from packmule.worker.dependents import Dependents
from packmule.worker.order import Strict
from packmule.worker.process import outcome, performer
from packmule.worker.process.claim import Claim, Claims
from packmule.worker.process.claimed import Claimed
from packmule.worker.process.outcome import Outcome

QUEUES = ("high", "default")
ENDS = ("finished", "raised", "failed", "stopped", "again", "again later", "returned", "postponed")
WAITS: dict[str, tuple[str, float | None]] = {
    "sleeps": ("sleep", 5.0),
    "waits": ("signal", None),
    "waits a while": ("signal", 5.0),
}
"""How a job may wait: the kind of its step, and for how many seconds."""


class Wrong(AssertionError):
    """An invariant doesn't hold."""


@dataclass
class Worker:
    """A worker as the test moves it: what it holds, and a call whose reply was lost."""

    name: str
    claims: Claims
    held: list[Claimed] = field(default_factory=list)
    lost_call: tuple[str, list[Outcome], int] | None = None
    is_rescued: bool = False
    """Whether its jobs were taken from it since the call whose reply was lost."""
    is_frozen: bool = False


class World:
    """The state of the test, beside what is in Redis."""

    def __init__(self, client: Redis, clock: Clock) -> None:
        self.redis = client
        self.clock = clock
        self.client = Client(client, queues=QUEUES)
        self.client.make_default()
        self.workers: dict[str, Worker] = {}
        self.dead: list[Worker] = []
        self.stale: list[tuple[Worker, Claimed]] = []
        self.batches: list[str] = []
        self.allowed = Allowed()
        self.space = keyspace.read(client)
        self.signals: dict[str, list[str]] = {}
        """By job, the data of the signals that were sent to it."""
        self.foreign: set[str] = set()
        """The jobs that others than our scripts change in this step."""
        self.may_vanish: set[str] = set()
        """The jobs whose record may be deleted in this step."""
        self.is_talking = True
        self._numbers = count(1)
        for name in ("w1", "w2"):
            self.add_worker(name)

    def add_worker(self, name: str) -> None:
        """A worker process starts under a name that nobody had before."""
        claims = Claims(self.redis, name, Strict(QUEUES if name.startswith("w1") else QUEUES[::-1]))
        claims.next_id = map(f"{name}-{{:x}}".format, count(1)).__next__
        self.workers[name[:2]] = Worker(name, claims)

    def say(self, text: str) -> None:
        """Explain a step in the program that a failed example prints."""
        if self.is_talking:
            note(f"   # {text}")

    def new_id(self) -> str:
        return f"n{next(self._numbers)}"

    def pick(self, number: int, *statuses: str) -> str | None:
        """One of the jobs in a status, or of all jobs, the latest first; None if there is none."""
        found = [
            id
            for id, record in self.space.records.items()
            if not statuses or record.get("status") in statuses
        ]
        found.sort(key=lambda id: int(id[1:]) if id[1:].isdigit() else 0, reverse=True)
        return found[number % len(found)] if found else None

    # What a worker does

    def send(self, worker: Worker, outcomes: list[Outcome], want: int, is_lost: bool) -> None:
        """Acknowledge and claim in one call, whose reply may be lost."""
        claim_id = worker.claims.next_id()
        known = worker.claims._last, worker.claims._leased_at
        claim = worker.claims.finish_and_claim(claim_id, outcomes, want)
        self._acknowledged(worker, outcomes)
        self._check_may_run(worker, claim)
        if is_lost:
            worker.claims._last, worker.claims._leased_at = known
            worker.lost_call, worker.is_rescued = (claim_id, outcomes, want), False
            self.say(f"its reply is lost: {_said(outcomes)}")
            return
        expected = [
            each.id
            for each in outcomes
            if self.space.claims.get(worker.name, {}).get(each.id) != each.execution
        ]
        if sorted(claim.stale) != sorted(expected):
            raise Wrong(f"stale are {expected}, and the reply says {claim.stale}")
        self.receive(worker, outcomes, claim)

    def send_again(self, worker: Worker) -> None:
        """Send the call whose reply was lost once more."""
        assert worker.lost_call
        claim_id, outcomes, want = worker.lost_call
        worker.lost_call = None
        before = self.space.claims.get(worker.name, {})
        claim = worker.claims.finish_and_claim(claim_id, outcomes, want)
        self._acknowledged(worker, outcomes)
        if not worker.is_rescued:
            if claim.stale:
                raise Wrong(f"{claim.stale} are stale, since the call was sent twice")
            taken = {id: each for id, each in before.items() if each.startswith(f"{claim_id}-")}
            taken = {id: each for id, each in taken.items() if id in self.space.records}
            if {job.id: job.execution for job in claim.jobs} != taken:
                raise Wrong(f"the call sent again brings {claim.jobs}, and claimed {taken}")
        self.receive(worker, outcomes, claim)

    def _acknowledged(self, worker: Worker, outcomes: Sequence[Outcome]) -> None:
        self.may_vanish |= {each.id for each in outcomes if each.status in ("finished", "settled")}
        ended = {each.execution for each in outcomes}
        worker.held = [job for job in worker.held if job.execution not in ended]

    def receive(self, worker: Worker, outcomes: list[Outcome], claim: Claim) -> None:
        """A worker reads the reply of its call."""
        if claim.unreadable:
            raise Wrong(f"these are unreadable: {claim.unreadable}")
        self.say(f"{_said(outcomes)}, claimed: {', '.join(job.id for job in claim.jobs) or 'nothing'}")
        worker.held += claim.jobs
        if claim.parents:
            Dependents(self.redis).enqueue_of(claim.parents)

    def _check_may_run(self, worker: Worker, claim: Claim) -> None:
        """Whether the jobs of a first claim wait, in a queue and a batch that go on."""
        for job in claim.jobs:
            status = as_status(self.redis.hget(keys.job_key(job.id), "status"))
            if status != "queued" and not job.due:
                raise Wrong(f"{worker.name} claimed job {job.id}, which is {status}")
            paused = {each.decode() for each in self.redis.smembers(keys.PAUSED)}
            if (
                job.queue in paused and not job.due
            ):  # the callback follows the end that this call acknowledges
                raise Wrong(f"{worker.name} claimed job {job.id} of a paused queue")
            if job.batch and self.redis.sismember(keys.PAUSED_BATCHES, job.batch):
                raise Wrong(f"{worker.name} claimed job {job.id} of a paused batch")

    def outcome(self, job: Claimed, end: str) -> Outcome:
        """How an execution ends, or the callback of one."""
        if not job.due:
            return self._outcome(job, end)
        if end == "again later":
            return outcome.unknown(job, KeyError("no such callback"), self.clock.now, 600.0)
        return outcome.returned(job) if end in ("returned", "postponed") else outcome.settled(job)

    def _outcome(self, job: Claimed, end: str) -> Outcome:
        """How an execution ends; a job whose limits nobody has checked only goes back."""
        name = wire.decode_call(job.data).name
        type = find(name)
        if type.limits and not job.is_grouped:
            call = wire.decode_call(job.data)
            return outcome.limited(job, type.limits.of(type.arguments_of(call.args, call.kwargs)))
        now = self.clock.now
        match end:
            case "finished":
                ended = performer.finished(job, b"1", now - 1, now)
                return outcome.with_steps(ended, "") if job.recorded else ended
            case "sleeps" | "waits" | "waits a while":
                kind, seconds = WAITS[end]
                return outcome.waiting(job, Waiting("", _next_field(job, kind), '["waits",1,0,', seconds))
            case "raised" | "failed" | "stopped":
                status = "stopped" if end == "stopped" else "failed"
                return outcome.failed(job, f"it {end}", now - 1, now, retry=end == "raised", status=status)
            case "again" | "again later":
                return outcome.again(job, "once more", now - 1, now, 0 if end == "again" else 7, 0)
            case _:
                is_postponed = end == "postponed" and job.lock and self.space.status(job.id) != "started"
                return outcome.postponed(job, 0.5) if is_postponed else outcome.returned(job)

    def lose(self, worker: Worker, executions: Sequence[str] | None = None) -> None:
        """Its jobs are taken from a worker: all, or those of `executions`. It may still give outcomes."""
        lost = [job for job in worker.held if executions is None or job.execution in executions]
        self.stale += [(worker, job) for job in lost]
        worker.held = [job for job in worker.held if job not in lost]
        worker.is_rescued = True

    # After each step

    def check(self) -> None:
        """Raise `Wrong` unless all invariants hold; end the step."""
        before, self.space = self.space, keyspace.read(self.redis, self.space.last_event)
        found = [*violations(self.space, self.allowed)]
        found += silent_changes(before, self.space, self.foreign)
        for id in before.records.keys() - self.space.records.keys():
            is_unwanted = before.records[id].get("batch", "").endswith(" callback")
            if not (id in self.may_vanish or f"rq:job:{id}" in before.expiring or is_unwanted):
                found.append(f"the record of job {id} is lost; it was {before.status(id)}")
        found += self._lost_claims()
        found += lost_signals(self.space, self.signals)
        self.foreign, self.may_vanish = set(), set()
        if found:
            raise Wrong("\n".join(found))

    def _lost_claims(self) -> list[str]:
        """Where what a worker holds and what its claims say differ."""
        found = []
        for worker in self.workers.values():
            held = {job.id: job.execution for job in worker.held}
            claims = self.space.claims.get(worker.name, {})
            if worker.lost_call:
                prefix = f"{worker.lost_call[0]}-"
                claims = {id: each for id, each in claims.items() if not each.startswith(prefix)}
            if held != claims:
                found.append(f"{worker.name} holds {held}, and its claims are {claims}")
        return found


def _next_field(job: Claimed, kind: str) -> str:
    """The field of the step for which a job waits, the first of its kind that has not ended."""
    recorded = job.recorded.values if job.recorded else {}
    for number in count(1):
        field = (
            f"sleep:{number}" if kind == "sleep" else "signal:go" if number == 1 else f"signal#{number}:go"
        )
        if recorded.get(field, b'["waits"').startswith(b'["waits"'):
            return field
    raise AssertionError


def as_status(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else "without a record"


def _said(outcomes: Sequence[Outcome]) -> str:
    return ", ".join(f"{each.id} {each.status}" for each in outcomes) or "no outcomes"
