"""Steps of workers and pools: claims, outcomes, lost replies, late ones, deaths, leases that end."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from redis import Redis

from packmule.jobs import keys
from packmule.tests.model import keyspace
from packmule.tests.model.enqueue_rules import numbers, queue_names
from packmule.tests.model.world import ENDS, WAITS, Worker, World, Wrong
from packmule.worker.process.claimed import Claimed
from packmule.worker.rescue import rescue, rescue_expired, server_time
from packmule.worker.scoreboard import MAIN, RunningJob
from packmule.worker.started import Marks

names = st.sampled_from(["w1", "w2"])
ends = st.lists(st.tuples(numbers, st.sampled_from([*ENDS, *WAITS])), max_size=2)


def running(job: Claimed) -> RunningJob:
    """What the scoreboard shows of a job that has run for long."""
    return RunningJob(MAIN, job.id, job.execution, 0.0, float("inf"), False)


class WorkRules(RuleBasedStateMachine):
    """What workers and their pools do, and what befalls them."""

    world: World
    redis: Redis

    def _worker(self, name: str) -> Worker | None:
        """The worker, unless it is frozen."""
        worker = self.world.workers[name]
        if worker.is_frozen:
            self.world.say(f"{worker.name} is frozen")
            return None
        return worker

    @rule(worker=names, want=st.integers(0, 3), ends=ends, is_lost=st.booleans())
    def call(self, worker, want=1, ends=(), is_lost=False):
        """Acknowledge some outcomes and claim; a call whose reply was lost is sent again first."""
        if not (found := self._worker(worker)):
            return
        if found.lost_call:
            self.world.send_again(found)
            return
        chosen: dict[str, tuple[Claimed, str]] = {}
        for number, end in ends if found.held else ():
            job = found.held[number % len(found.held)]
            chosen.setdefault(job.execution, (job, end))
        outcomes = [self.world.outcome(job, end) for job, end in chosen.values()]
        self.world.send(found, outcomes, want, is_lost)

    @rule(worker=names)
    def work(self, worker):
        """Finish all and claim more, as happens most of the time."""
        if not (found := self._worker(worker)) or found.lost_call:
            return
        self.world.send(found, [self.world.outcome(job, "finished") for job in found.held], 3, is_lost=False)

    @rule(worker=names)
    def mark_started(self, worker):
        """The pool marks all jobs that a worker holds, for they run for long."""
        found = self.world.workers[worker]
        Marks(self.redis).mark(found.name, [running(job) for job in found.held], now=1.0)

    @rule(number=numbers)
    @precondition(lambda self: self.world.stale)
    def mark_late(self, number=0):
        """The mark of an execution whose job was taken from its worker comes late: it changes nothing."""
        worker, job = self.world.stale[number % len(self.world.stale)]
        Marks(self.redis).mark(worker.name, [running(job)], now=1.0)
        if keyspace.read(self.redis).values != self.world.space.values:
            raise Wrong(f"{worker.name} marked job {job.id}, which was taken from it")

    @rule(worker=names, queue=queue_names, is_claimed=st.booleans())
    def move(self, worker, queue="high", is_claimed=True):
        """A blocking move brings a job to a worker's waiting list, and the claim behind it takes it."""
        if found := self._worker(worker):
            # No worker waits without a lease: its first claim takes one, and its pool renews it.
            ends = server_time(self.redis) + keys.LEASE_SECONDS
            self.redis.zadd(keys.LEASES, {found.name: ends}, nx=True)
            self.redis.lmove(keys.queue_key(queue), keys.waiting_key(found.name), "LEFT", "RIGHT")
            if is_claimed:
                self.world.receive(found, [], found.claims.claim_moved(0, found.claims.next_id()))

    @rule(number=numbers, end=st.sampled_from([*ENDS, *WAITS]))
    @precondition(lambda self: self.world.stale)
    def end_late(self, number=0, end="finished"):
        """A worker that lost a job gives its outcome, which is refused."""
        worker, job = self.world.stale[number % len(self.world.stale)]
        claimed = self.world.space.claims.get(worker.name, {})
        if worker.lost_call or claimed.get(job.id) == job.execution:
            return  # it sends that call again first, or that call has claimed the job again
        given = self.world.outcome(job, end)
        claim = worker.claims.finish_and_claim(worker.claims.next_id(), [given], 0)
        if claim.stale != [job.id]:
            raise Wrong(f"the late outcome of job {job.id} was not refused")

    @rule(
        worker=names,
        verdict=st.sampled_from(["returned", "died", "overran", "stopped"]),
        running=st.none() | numbers,
        calls_late=st.booleans(),
    )
    def end_worker(self, worker, verdict="died", running=None, calls_late=False):
        """A worker's process ends, and its pool returns its jobs; its last call may arrive after that."""
        old = self.world.workers[worker]
        executions = []
        if running is not None and old.held and verdict != "returned":
            executions = [old.held[running % len(old.held)].execution]
        back, failed = rescue(self.redis, old.name, verdict, "why", executions)
        self.world.say(f"{old.name}: back {back}, failed {failed}")
        self.world.lose(old)
        old.lost_call = None
        if calls_late and verdict != "returned":
            old.claims._leased_at = self.world.clock.now  # its heartbeat has just renewed it
            late = old.claims.finish_and_claim(old.claims.next_id(), [], 1).jobs
            self.world.say(f"{old.name} claimed {[job.id for job in late]} after its end")
        self.world.add_worker(f"{worker}{self.world.new_id()}")

    @rule(worker=names, number=numbers, verdict=st.sampled_from(["died", "overran", "stopped"]))
    def end_execution(self, worker, number=0, verdict="died"):
        """The process of one isolated job ends, and its worker goes on."""
        found = self._worker(worker)
        if not found or not found.held:
            return
        job = found.held[number % len(found.held)]
        back, failed = rescue(self.redis, found.name, verdict, "why", [job.execution], "named")
        self.world.say(f"back {back}, failed {failed}")
        is_lost = found.is_rescued
        self.world.lose(found, [job.execution])
        found.is_rescued = is_lost

    @rule(worker=names)
    def freeze(self, worker):
        """A host freezes with its worker: nobody renews the lease."""
        self.world.workers[worker].is_frozen = True

    @rule(worker=names)
    def thaw(self, worker):
        self.world.workers[worker].is_frozen = False

    @rule()
    def rescue_from_vanished(self):
        """A pool looks for leases that have ended."""
        for name, rescued in rescue_expired(self.redis).items():
            self.world.say(f"{name}: back {rescued.back}, failed {rescued.failed}")
            for worker in self.world.workers.values():
                if worker.name == name:
                    self.world.lose(worker)

    @rule(seconds=st.sampled_from([0.1, 1.0, 6.0, 11.0, 61.0, 1900.0]))
    def advance(self, seconds):
        """Time passes, and living workers renew their leases."""
        for worker in self.world.workers.values():
            if not worker.is_frozen:
                ends_at = self.world.clock.now + seconds + keys.LEASE_SECONDS
                self.redis.zadd(keys.LEASES, {worker.name: ends_at}, xx=True)
        self.world.clock.advance(seconds)
