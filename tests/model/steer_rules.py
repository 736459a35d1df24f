"""Steps of operators, the leader and RQ's tools: cancel, retry, pause, purge, promote, repair, delete."""

from __future__ import annotations

import secrets
from contextlib import suppress

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from redis import Redis
from rq.exceptions import InvalidJobOperation, NoSuchJobError
from rq.job import Job
from rq.serializers import JSONSerializer

from packmule.jobs import control, queues, signaling, wire
from packmule.jobs.batch import Batch
from packmule.jobs.batch_state import NoSuchBatch
from packmule.jobs.reader import NoSuchJob
from packmule.scheduler.maintenance.batch_settler import BatchSettler
from packmule.scheduler.maintenance.promote import promote
from packmule.scheduler.maintenance.prune import Pruner
from packmule.scheduler.maintenance.repair import GroupRepair, OrphanRepair
from packmule.tests.model.enqueue_rules import numbers, queue_names
from packmule.tests.model.world import World


class SteerRules(RuleBasedStateMachine):
    """What operators, the leading scheduler and RQ's own tools do."""

    world: World
    redis: Redis

    # Operators

    @rule(job=numbers)
    def cancel(self, job=0):
        if id := self.world.pick(job):
            if self.world.space.status(id) == "deferred" and "waits" not in self.world.space.records[id]:
                self.world.foreign.add(id)
                self.world.allowed.loose.add(id)
            status = "not canceled"
            with suppress(control.NotCanceled, NoSuchJob):
                status = control.cancel(self.redis, id, timeout=-1)
            self.world.say(f"{id} {status}")

    @rule(job=numbers, twice=st.booleans())
    def signal(self, job=0, twice=False):
        """Somebody sends a signal; the same command may arrive twice."""
        id = self.world.pick(job)
        if id is None:
            return
        data = str(1_000_000 + sum(map(len, self.world.signals.values())))
        status = self.world.space.status(id)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(secrets, "token_hex", lambda _: data)
            for _ in range(2 if twice else 1):
                try:
                    self.world.say(f"{id} {signaling.signal(self.redis, id, 'go', int(data))}")
                except signaling.NotSignaled as error:
                    if status in wire.ALIVE:
                        raise
                    self.world.say(str(error))
                    return
        self.world.signals.setdefault(id, []).append(data)

    @rule(job=numbers)
    def retry(self, job=0):
        if id := self.world.pick(job, "failed", "stopped", "canceled"):
            status = "retried"
            with suppress(NoSuchJob):
                try:
                    control.retry(self.redis, id)
                except control.NotRetried as error:
                    status = str(error)
            self.world.say(f"{id} {status}")

    @rule(batch=numbers, change=st.sampled_from(["seal", "pause", "resume", "cancel"]))
    @precondition(lambda self: self.world.batches)
    def steer_batch(self, batch=0, change="seal"):
        id = self.world.batches[batch % len(self.world.batches)]
        with suppress(NoSuchBatch):
            getattr(Batch(self.redis, id), change)()
        if change == "cancel":
            self.world.allowed.loose |= {
                each
                for inner in (id, *self._nested(id))
                for each in self.world.space.batch_jobs.get(inner, {})
            }
        self.world.say(f"batch {id}")

    def _nested(self, batch: str) -> list[str]:
        jobs = self.world.space.batch_jobs.get(batch, {})
        return [id.removeprefix("batch:") for id in jobs if id.startswith("batch:")]

    @rule(queue=queue_names)
    def pause(self, queue="high"):
        queues.pause(self.redis, queue)

    @rule(queue=queue_names)
    def resume(self, queue="high"):
        queues.resume(self.redis, queue)

    @rule(queue=queue_names)
    def purge(self, queue="high"):
        self.world.may_vanish |= {
            id for id, record in self.world.space.records.items() if record.get("origin") == queue
        }
        self.world.say(f"{queues.purge(self.redis, queue)} jobs")

    # The leader

    @rule()
    def promote(self):
        promote(self.redis)

    @rule()
    def repair(self):
        GroupRepair(self.redis).repair()
        OrphanRepair(self.redis).repair()
        BatchSettler(self.redis).settle()

    @rule()
    def prune(self):
        Pruner(self.redis).prune()

    # RQ's own tools

    @rule(job=numbers)
    def rq_cancel(self, job=0):
        if id := self.world.pick(job):
            self._by_rq(id)
            with suppress(InvalidJobOperation):
                Job.fetch(id, self.redis, JSONSerializer).cancel()

    @rule(job=numbers)
    def rq_delete(self, job=0):
        if id := self.world.pick(job):
            self._by_rq(id)
            self.world.may_vanish.add(id)
            Job.fetch(id, self.redis, JSONSerializer).delete()

    @rule(job=numbers)
    def rq_requeue(self, job=0):
        if id := self.world.pick(job, "failed", "stopped"):
            self._by_rq(id)
            self.world.allowed.requeued.add(id)
            with suppress(InvalidJobOperation, NoSuchJobError):
                Job.fetch(id, self.redis, JSONSerializer).requeue()

    def _by_rq(self, id: str) -> None:
        self.world.say(f"{id}")
        self.world.foreign.add(id)
        self.world.allowed.loose.add(id)
