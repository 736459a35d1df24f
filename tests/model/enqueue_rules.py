"""Steps that enqueue: each kind of job, option and limit, by our client, by RQ's, and by schedules."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from redis import Redis
from rq import Callback, Queue, Repeat, Retry
from rq.job import Dependency
from rq.serializers import JSONSerializer

from packmule.jobs import schedule_store
from packmule.jobs.batch import Batch
from packmule.jobs.batch_state import NoSuchBatch
from packmule.jobs.delivery import BatchClosed, deliver
from packmule.jobs.job import JobFunction
from packmule.jobs.schedule import Schedule
from packmule.scheduler.schedules.periodic_enqueuer import PeriodicEnqueuer
from packmule.tests.model import keyspace, model_jobs
from packmule.tests.model.world import QUEUES, World, Wrong

LIMITED = ("alone", "alone_by_key", "two_at_once", "rated", "fair", "fair_slot", "weighed", "slot_and_rate")
RULES: dict[str, dict[str, Any]] = {
    "life": {"unique": True},
    "ttl": {"unique_ttl": 60},
    "throttle": {"throttle": 60},
    "debounce": {"debounce": 5, "debounce_limit": 12},
}
TERM = "1"

numbers = st.integers(0, 5)
"""Which of the things that there are; their number goes round."""
spots = st.sampled_from(["back", "front", "delayed"])
key_names = st.sampled_from("ab")
queue_names = st.sampled_from(QUEUES)
priorities = st.sampled_from([0, 0, 60, -6, -60])


def placed(place: str) -> dict[str, Any]:
    """The options of a place."""
    return {"front": {"at_front": True}, "delayed": {"delay": 5}}.get(place, {})


class EnqueueRules(RuleBasedStateMachine):
    """What producers and schedules do."""

    world: World
    redis: Redis
    enqueuer: PeriodicEnqueuer

    def _send(
        self, function: JobFunction[..., Any], calls: list[str], is_sent_twice: bool, **options: Any
    ) -> None:
        """Enqueue as the client does; the same command may arrive twice."""
        world, job = self.world, function.options(**options)
        prepared = job.prepare("")
        entries = world.client.entries(
            prepared.job, [((key,), {}) for key in calls], prepared.options.over(prepared.job.options)
        )
        try:
            holders = deliver(self.redis, entries)
        except (BatchClosed, NoSuchBatch) as error:
            self.world.say(f"refused: {error}")
            return
        self.world.say(f"{', '.join(holders.get(each.id, each.id) for each in entries)}")
        if is_sent_twice:
            first = keyspace.read(self.redis)
            if deliver(self.redis, entries) != holders:
                raise Wrong("the enqueue that was sent twice got another reply")
            if (second := keyspace.read(self.redis)).values != first.values:
                raise Wrong(f"an enqueue that was sent twice changed {first.values} to {second.values}")

    def _batch(self, number: int | None) -> str | None:
        batches = self.world.batches
        return batches[number % len(batches)] if number is not None and batches else None

    @rule(
        queue=queue_names,
        place=spots,
        result_ttl=st.sampled_from([None, 0, -1]),
        retries=st.sampled_from([0, 1]),
        batch=st.none() | numbers,
        twice=st.booleans(),
        priority=priorities,
    )
    def enqueue(
        self, queue="high", place="back", result_ttl=None, retries=0, batch=None, twice=False, priority=0
    ):
        options = {"retry_intervals": [0, 5]} if retries else {}
        self._send(
            model_jobs.plain,
            ["x"],
            twice,
            queue=queue,
            result_ttl=result_ttl,
            retries=retries,
            batch=self._batch(batch),
            priority=priority,
            **placed(place),
            **options,
        )

    @rule(
        kind=st.sampled_from(LIMITED),
        calls=st.lists(key_names, min_size=1, max_size=3),
        queue=queue_names,
        place=spots,
        batch=st.none() | numbers,
        twice=st.booleans(),
        priority=priorities,
    )
    def enqueue_limited(self, kind, calls, queue="high", place="back", batch=None, twice=False, priority=0):
        function, options = getattr(model_jobs, kind), placed(place)
        self._send(
            function, calls, twice, queue=queue, batch=self._batch(batch), priority=priority, **options
        )

    @rule(
        kind=st.sampled_from(["skips", "replaces"]),
        calls=st.lists(key_names, min_size=1, max_size=2),
        place=spots,
        batch=st.none() | numbers,
        twice=st.booleans(),
        priority=priorities,
    )
    def enqueue_singleton(self, kind, calls, place="back", batch=None, twice=False, priority=0):
        function = getattr(model_jobs, kind)
        self._send(function, calls, twice, batch=self._batch(batch), priority=priority, **placed(place))

    @rule(
        kind=st.sampled_from([*RULES]),
        key=key_names,
        queue=queue_names,
        batch=st.none() | numbers,
        twice=st.booleans(),
    )
    def enqueue_unique(self, kind, key="a", queue="high", batch=None, twice=False):
        batch = None if kind == "debounce" else self._batch(batch)
        self._send(model_jobs.plain, [f"{kind} {key}"], twice, queue=queue, batch=batch, **RULES[kind])

    @rule(kind=st.sampled_from(["plain", "alone"]), queue=queue_names, delay=st.sampled_from([None, 5]))
    def rq_enqueue(self, kind="plain", queue="high", delay=None):
        id = self.world.new_id()
        self.world.foreign.add(id)
        call = f"packmule.tests.model.model_jobs.{kind}"
        rq = Queue(queue, self.redis, serializer=JSONSerializer)
        if delay:
            rq.enqueue_in(timedelta(seconds=delay), call, "x", job_id=id)
        else:
            rq.enqueue(call, "x", job_id=id)
        self.world.say(f"{id}")

    @rule(repeats=st.sampled_from([0, 1]), retries=st.sampled_from([0, 1]), ttl=st.sampled_from([None, 0]))
    def rq_enqueue_with_callbacks(self, repeats=0, retries=0, ttl=None):
        id = self.world.new_id()
        self.world.foreign.add(id)
        callback = Callback("packmule.tests.model.model_jobs.plain")
        Queue("high", self.redis, serializer=JSONSerializer).enqueue(
            "packmule.tests.model.model_jobs.plain",
            "x",
            job_id=id,
            result_ttl=ttl,
            repeat=Repeat(times=repeats, interval=5) if repeats else None,
            retry=Retry(max=retries) if retries else None,
            on_success=callback,
            on_failure=callback,
            on_stopped=callback,
        )
        self.world.say(f"{id}")

    @rule(parent=numbers, may_fail=st.booleans())
    def rq_enqueue_dependent(self, parent=0, may_fail=False):
        on = self.world.pick(parent)
        if on is None:
            return
        id = self.world.new_id()
        self.world.foreign.add(id)
        rq = Queue("high", self.redis, serializer=JSONSerializer)
        rq.enqueue(
            "packmule.tests.model.model_jobs.plain",
            "x",
            job_id=id,
            depends_on=Dependency([on], allow_failure=may_fail),
        )
        self.world.say(f"{id}, which waits for {on}")

    @rule(calls_back=st.booleans(), collect=st.booleans(), parent=st.none() | numbers)
    def create_batch(self, calls_back=True, collect=False, parent=None):
        outer = self._batch(parent)
        callback = model_jobs.plain.prepare("callback") if calls_back else None
        with suppress(BatchClosed, NoSuchBatch):
            batch = Batch.create(
                on_complete=callback,
                on_success=callback,
                collect=collect,
                parent=Batch(self.redis, outer) if outer else None,
                client=self.world.client,
            )
            self.world.batches.append(batch.id)
            self.world.say(f"batch {batch.id}{f' in {outer}' if outer else ''}")

    @rule(overlap=st.sampled_from(["skip", "allow", "wait", "cancel"]))
    @precondition(lambda self: not self.redis.exists(schedule_store.SCHEDULES))
    def schedule(self, overlap="skip"):
        schedule_store.put(
            self.redis,
            Schedule(name="s", job=f"{model_jobs.__name__}.tick", every=5, overlap=overlap),
        )

    @rule()
    @precondition(lambda self: self.redis.exists(schedule_store.SCHEDULES))
    def decide_ticks(self):
        self.redis.hset("pm:leader", "term", TERM)
        self.enqueuer.round(TERM)
