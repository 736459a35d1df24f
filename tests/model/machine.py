"""The state machine: any order of steps, with all invariants after each, until everything comes to rest."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from itertools import count

import pytest
from hypothesis.stateful import invariant
from redis import Redis

from packmule.jobs import batch, keys, queues, signaling, wire
from packmule.jobs.batch import Batch
from packmule.jobs.batch_state import NoSuchBatch
from packmule.scheduler.schedules.periodic_enqueuer import PeriodicEnqueuer
from packmule.tests.model import clock
from packmule.tests.model.enqueue_rules import EnqueueRules
from packmule.tests.model.steer_rules import SteerRules
from packmule.tests.model.work_rules import WorkRules
from packmule.tests.model.world import World, Wrong

MOST_ROUNDS = 120
"""Each a few seconds of the clock: far more than any example needs to come to rest."""


class Machine(EnqueueRules, WorkRules, SteerRules):
    """One server, two workers, and everybody who may touch its jobs. `server` is set by the test."""

    server: Redis

    def __init__(self) -> None:
        super().__init__()
        self._open = ExitStack()
        self.redis = self.server
        self.redis.flushall()
        patch = self._open.enter_context(pytest.MonkeyPatch.context())
        numbers = count(1)
        patch.setattr(keys, "new_job_ids", lambda number: [f"j{next(numbers)}" for _ in range(number)])
        patch.setattr(batch, "CANCEL_SECONDS", -1.0)
        self.world = World(self.redis, self._open.enter_context(clock.stopped(self.redis)))
        self.enqueuer = PeriodicEnqueuer(self.world.client)

    @invariant()
    def all_is_well(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        """Everything comes to rest: what waits runs to its end, and nothing is left taken."""
        try:
            if sys.exc_info()[0] is None:  # otherwise a step has failed, or Hypothesis has seen enough
                self.come_to_rest()
        finally:
            self._open.close()

    def come_to_rest(self) -> None:
        """Let all work end, and check that it does."""
        self.world.is_talking = False
        for queue in queues.paused(self.redis):
            queues.resume(self.redis, queue)
        for id in reversed(self.world.batches):
            for change in ("resume", "seal"):
                try:
                    getattr(Batch(self.redis, id), change)()
                except NoSuchBatch:
                    break
        for number in range(MOST_ROUNDS):
            self._signal_all()
            self._let_all_work()
            self.advance(12.0 if number % 10 else 1900.0)
            self.promote()
            self.rescue_from_vanished()
            self.repair()
            self.world.check()
            if not self._unrest():
                return
        raise Wrong("this never comes to rest:\n" + "\n".join(self._unrest()))

    def _signal_all(self) -> None:
        """Send what jobs wait for, without which they never end."""
        for id, record in self.world.space.records.items():
            if record.get("status") == "deferred" and "waits" in record:
                signaling.signal(self.redis, id, "go")
        self.world.check()

    def _let_all_work(self) -> None:
        for name in ("w1", "w2"):
            worker = self.world.workers[name]
            worker.is_frozen = False
            if worker.lost_call:
                self.world.send_again(worker)
                self.world.check()
            outcomes = [self.world.outcome(job, "finished") for job in worker.held]
            self.world.send(worker, outcomes, 5, is_lost=False)
            self.world.check()

    def _unrest(self) -> list[str]:
        """What should not be there when everything rests."""
        space = self.world.space
        found = [
            f"job {id} is {record['status']} in {space.places().get(id)}"
            for id, record in space.records.items()
            if record.get("status") in wire.ALIVE and record.get("status") != "deferred"
        ]
        found += [f"{name} claims {claims}" for name, claims in space.claims.items() if claims]
        for kind in ("holders", "groups", "heads", "blocked", "due", "held", "waiting"):
            if left := getattr(space, kind):
                found.append(f"{kind}: {left}")
        for id, fields in space.batches.items():
            if "sealed" in fields and "ended" not in fields:
                found.append(f"batch {id} goes on: {fields}, {space.batch_jobs.get(id)}")
        return found
