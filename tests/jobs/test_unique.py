"""Unique jobs: the first or the last of equal calls makes the job, however many producers call."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from redis import Redis
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer

from packmule import job
from packmule.coordination.redis.connection import connect
from packmule.jobs import keys
from packmule.jobs.client import Client
from packmule.jobs.control import cancel
from packmule.jobs.delivery import ServerFull
from packmule.jobs.job_type import InvalidCall, InvalidJob
from packmule.jobs.options import InvalidOption, Options
from packmule.scheduler.maintenance.promote import promote
from packmule.tests.jobs import sample_jobs
from packmule.tests.losing_proxy import LosingProxy
from packmule.worker.order import Strict
from packmule.worker.process import outcome, performer
from packmule.worker.process.claim import Claims
from packmule.worker.process.claimed import Claimed
from packmule.worker.process.outcome import Outcome
from packmule.worker.rescue import MOST_DEATHS, rescue

SCHEDULED = keys.registry_key("scheduled", "default")


@pytest.fixture(autouse=True)
def enqueue(client: Redis, monkeypatch: pytest.MonkeyPatch) -> Client:
    made = Client(client)
    monkeypatch.setattr(Client, "_default", made)
    return made


def rq_job(client: Redis, id: str) -> Job:
    return Job.fetch(id, connection=client, serializer=JSONSerializer)


def claim(client: Redis) -> list[Claimed]:
    return Claims(client, "w", Strict(["default"])).finish_and_claim("c", [], 100).jobs


def perform(client: Redis, end: Callable[[Claimed], Outcome] | None = None) -> list[str]:
    """Claim and end all jobs of the default queue, as a worker does; return their ids."""
    claims = Claims(client, "w", Strict(["default"]))
    jobs = claims.finish_and_claim(claims.next_id(), [], 100).jobs
    claims.finish_and_claim(claims.next_id(), [(end or done)(job) for job in jobs], 0)
    return [job.id for job in jobs]


def done(job: Claimed) -> Outcome:
    return performer.finished(job, b"1", 1.0, 2.0)


def raised(job: Claimed) -> Outcome:
    return outcome.failed(job, "boom", 1.0, 2.0)


def queued(client: Redis) -> list[str]:
    return [id.decode() for id in client.lrange("rq:queue:default", 0, -1)]


def waiting(client: Redis) -> dict[str, float]:
    """The scheduled jobs, and the seconds until each is due."""
    seconds, microseconds = client.time()
    found = client.zrange(SCHEDULED, 0, -1, withscores=True)
    return {id.decode(): due - seconds - microseconds / 1e6 for id, due in found}


def places(client: Redis) -> dict[bytes, bytes]:
    return client.hgetall(keys.UNIQUE)


# --- which calls are equal


def test_a_call_is_kept_out_while_an_equal_one_waits(client):
    id = sample_jobs.only.enqueue(1)
    assert [sample_jobs.only.enqueue(1), sample_jobs.only.enqueue(2) == id] == [id, False]
    assert len(queued(client)) == 2


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((1, 2), {}),
        ((1,), {"b": 2}),
        ((), {"b": 2, "a": 1}),
        ((), {"a": 1, "c": None}),
    ],
)
def test_positional_named_and_default_arguments_make_equal_calls(client, args, kwargs):
    assert sample_jobs.only.enqueue(*args, **kwargs) == sample_jobs.only.enqueue(1)
    assert len(queued(client)) == 1


def test_calls_that_differ_in_any_argument_are_not_equal(client):
    calls: list[Any] = [
        *[(1,), (2,), (1, 3), (1, 2, 3), (1, 2, 3, 4)],
        *[
            {"a": 1, "c": value}
            for value in (0, "", "null", [], {}, [1, [2]], [[1], 2], {"x": 1}, "[]", "1", 1)
        ],
        *[{"a": 1, "x": 1}, {"a": 1, "y": 1}, {"a": 1, "more": {"x": 1}}],
    ]
    assert len(set(sample_jobs.only.enqueue_many(calls))) == len(calls)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"x": 1, "y": {"b": 1, "a": 2}}, {"y": {"a": 2, "b": 1}, "x": 1}),
        ({"b", "a", "c"}, {"c", "a", "b"}),
        (date(2026, 1, 2), "2026-01-02"),
    ],
)
def test_arguments_that_are_equal_in_json_are_equal(one, other):
    assert sample_jobs.only.enqueue(1, c=one) == sample_jobs.only.enqueue(1, c=other)


def test_arguments_that_an_annotation_makes_equal_are_equal():
    plan, number = sample_jobs.plan.options(unique=True), sample_jobs.by_number.options(unique=True)
    assert plan.enqueue(datetime(2026, 1, 2, tzinfo=UTC)) == plan.enqueue("2026-01-02T00:00:00Z")
    assert number.enqueue({2: "b", 1: "a"}) == number.enqueue({"1": "a", "2": "b"})


def test_a_key_depends_only_on_the_arguments_that_it_names(client):
    id = sample_jobs.invoice.enqueue(7, "2026-11")
    assert sample_jobs.invoice.enqueue(7, "2026-12", copies=3) == id
    assert sample_jobs.invoice.enqueue(8, "2026-11") != id
    assert sample_jobs.invoice.enqueue("7") != id
    assert rq_job(client, id).args == [7, "2026-11"]


def test_values_in_a_key_cannot_run_into_each_other():
    keyed = sample_jobs.invoice.options(unique="{account}:{copies}:{month}")
    calls = [(1, "", 23), (12, "", 3), ("1", "3", 2), ("a:b", "c"), ("a", "b:c"), ('a"', "b"), ("a", '"b')]
    assert len(set(keyed.enqueue_many(calls))) == len(calls)


def test_a_key_without_arguments_makes_all_calls_of_the_job_equal():
    whole = sample_jobs.invoice.options(unique="nightly report, größer")
    assert whole.enqueue(1) == whole.enqueue(2)
    assert sample_jobs.only.options(unique="nightly report, größer").enqueue(1) != whole.enqueue(1)


def test_a_key_of_long_arguments_stays_short_and_distinct(client):
    keyed = sample_jobs.echo.options(unique=True)
    ids = [keyed.enqueue("x" * 10_000 + end) for end in "aba"]
    assert (ids[0] == ids[2], ids[0] == ids[1]) == (True, False)
    assert max(map(len, places(client))) < 300


def test_an_enqueue_can_be_unique_by_another_key_or_not_at_all(client):
    id = sample_jobs.only.enqueue(1)
    assert sample_jobs.only.options(unique=False).enqueue(1) != id
    assert sample_jobs.only.options(unique="{b}").enqueue(1) != id
    assert sample_jobs.only.enqueue(1) == id
    both = [sample_jobs.refresh.options(unique=False, delay=5).enqueue(1) for _ in range(2)]
    assert len(set(both)) == 2


# --- held while the job is alive


def test_rq_reads_a_unique_job(client):
    job = rq_job(client, sample_jobs.only.enqueue(1, b=3))
    assert (job.func_name, job.args, job.kwargs) == ("packmule.tests.jobs.sample_jobs.only", [1], {"b": 3})
    assert job.get_status() is JobStatus.QUEUED
    job.save()
    assert sample_jobs.only.enqueue(1, 3) == job.id


@pytest.mark.parametrize("end", [done, raised])
@pytest.mark.parametrize("result_ttl", [0, 500, -1])
def test_the_place_is_free_as_soon_as_the_job_has_ended(client, end, result_ttl):
    once = sample_jobs.only.options(result_ttl=result_ttl)
    id = once.enqueue(1)
    assert perform(client, end) == [id]
    assert once.enqueue(1) != id
    assert len(queued(client)) == 1


def test_a_running_job_keeps_others_out(client):
    id = sample_jobs.only.enqueue(1)
    assert [job.id for job in claim(client)] == [id]
    assert sample_jobs.only.enqueue(1) == id  # claimed
    client.hset(keys.job_key(id), "status", "started")  # as a worker marks a job that takes long
    assert sample_jobs.only.enqueue(1) == id
    assert queued(client) == []


def test_a_job_that_waits_for_a_retry_keeps_others_out(client):
    retried = sample_jobs.only.options(retries=1, retry_intervals=[60])
    id = retried.enqueue(1)
    perform(client, raised)
    assert rq_job(client, id).get_status() is JobStatus.SCHEDULED
    assert retried.enqueue(1) == id
    client.zadd(SCHEDULED, {id: 1})
    promote(client)
    assert retried.enqueue(1) == id
    assert perform(client, raised) == [id]
    assert retried.enqueue(1) != id


def test_a_scheduled_job_keeps_others_out_however_late_it_is_due(client):
    far = sample_jobs.only.options(delay=timedelta(days=365 * 50))
    id = far.enqueue(1)
    assert client.ttl(keys.UNIQUE) == -1
    sample_jobs.only.enqueue_many([(n,) for n in range(2, 100)])  # each of which looks for places to give up
    assert sample_jobs.only.enqueue(1) == id


def test_a_deferred_job_keeps_others_out(client):
    id = sample_jobs.only.enqueue(1)
    client.lrem("rq:queue:default", 1, id)
    rq_job(client, id).set_status(JobStatus.DEFERRED)
    assert sample_jobs.only.enqueue(1) == id


def test_a_canceled_or_deleted_job_frees_its_place(client):
    id = sample_jobs.only.enqueue(1)
    cancel(client, id)
    assert client.hlen(keys.UNIQUE) == 0
    second = sample_jobs.only.enqueue(1)
    assert second != id
    rq_job(client, second).delete()
    assert sample_jobs.only.enqueue(1) not in (id, second)


def test_a_rescued_job_keeps_its_place_and_a_quarantined_job_frees_it(client):
    id = sample_jobs.only.enqueue(1)
    for death in range(MOST_DEATHS):
        assert sample_jobs.only.enqueue(1) == id
        (job,) = claim(client)
        died = rescue(client, "w", "died", executions=[job.execution])
        assert died == (([], [id]) if death == MOST_DEATHS - 1 else ([id], []))
    assert sample_jobs.only.enqueue(1) != id


@pytest.mark.parametrize(
    "harm",
    [
        lambda client, key: client.hdel(key, "data"),
        lambda client, key: client.hdel(key, "origin"),
        lambda client, key: client.hset(key, "status", "nonsense"),
        lambda client, key: [client.delete(key), client.set(key, "no hash")],
    ],
)
@pytest.mark.parametrize("more", [{}, {"unique_ttl": 60}, {"debounce": 60}])
def test_a_record_that_will_never_run_frees_its_place(client, harm, more):
    once = sample_jobs.only.options(**more)
    id = once.enqueue(1)
    harm(client, keys.job_key(id))
    assert once.enqueue(1) != id


def test_a_debounced_job_that_lost_the_beginning_of_its_wait_waits_from_now_on(client):
    calm = sample_jobs.only.options(debounce=60, debounce_limit=100)
    id = calm.enqueue(1)
    client.hdel(keys.job_key(id), "debounced_since")
    assert calm.enqueue(1) == id
    assert float(client.hget(keys.job_key(id), "debounced_since")) == pytest.approx(time.time(), abs=30)


def test_a_job_that_gives_up_its_place_leaves_another_holder_alone(client):
    id = sample_jobs.only.enqueue(1)
    (place,) = client.hkeys(keys.UNIQUE)
    client.hset(keys.UNIQUE, place, "another 0")
    cancel(client, id)
    assert client.hget(keys.UNIQUE, place) == b"another 0"
    id = sample_jobs.only.enqueue(2)
    client.delete(keys.UNIQUE)
    client.set(keys.UNIQUE, "no hash")
    assert cancel(client, id) == "canceled"


def test_a_failed_job_takes_its_place_again_when_it_is_retried(client):
    id = sample_jobs.only.enqueue(1)
    perform(client, raised)
    sample_jobs.only.enqueue_many([(n,) for n in range(2, 100)])
    rq_job(client, id).requeue()
    assert sample_jobs.only.enqueue(1) == id


def test_a_new_job_of_a_chosen_id_does_not_hold_the_place_of_the_old_one(client):
    sample_jobs.only.options(job_id="nightly", result_ttl=0).enqueue(1)
    perform(client)
    sample_jobs.only.options(job_id="nightly").enqueue(2)
    assert sample_jobs.only.enqueue(1) != "nightly"
    assert sample_jobs.only.enqueue(2) == "nightly"


def test_a_place_that_names_the_job_of_another_place_is_free(client):
    first = sample_jobs.only.enqueue(1)
    (place,) = client.hkeys(keys.UNIQUE)
    other = sample_jobs.only.enqueue(2)
    client.hset(keys.UNIQUE, place, f"{other} 0")
    assert sample_jobs.only.enqueue(1) not in (first, other)


def test_a_job_of_a_chosen_id_is_kept_out_by_the_holder_of_the_place(client):
    id = sample_jobs.only.enqueue(1)
    assert sample_jobs.only.options(job_id="chosen").enqueue(1) == id
    assert not Job.exists("chosen", connection=client)


# --- held for a time


@pytest.mark.parametrize("result_ttl", [0, 500])
def test_a_ttl_holds_the_place_after_the_job_has_finished(client, result_ttl):
    once = sample_jobs.only.options(unique_ttl=60, result_ttl=result_ttl)
    id = once.enqueue(1)
    perform(client)
    assert once.enqueue(1) == id
    (key,) = places(client)
    client.hset(keys.UNIQUE, key, f"{id} {time.time() - 0.001:.6f}")
    assert once.enqueue(1) != id


def test_a_ttl_frees_the_place_even_if_the_job_still_waits():
    once = sample_jobs.only.options(unique_ttl=timedelta(seconds=0.2))
    id = once.enqueue(1)
    deadline = time.monotonic() + 60
    while once.enqueue(1) == id:
        assert time.monotonic() < deadline
    assert once.enqueue(1) != id


def test_a_failed_job_frees_its_place_before_its_ttl_unless_it_is_throttled(client):
    once = sample_jobs.only.options(unique_ttl=60)
    id, throttled = once.enqueue(1), sample_jobs.ping.enqueue(1)
    perform(client, raised)
    assert once.enqueue(1) != id
    assert sample_jobs.ping.enqueue(1) == throttled


def test_throttle_enqueues_only_the_first_call_of_its_span(client):
    ids = [sample_jobs.ping.enqueue(1, reason) for reason in ("first", "second")]
    perform(client)
    ids.append(sample_jobs.ping.enqueue(1, "third"))
    assert len(set(ids)) == 1
    assert rq_job(client, ids[0]).args == [1, "first"]
    often = sample_jobs.ping.options(throttle=0.1)
    began = time.monotonic()
    made = set()
    while len(made) < 2 or time.monotonic() - began < 1:
        made.add(often.enqueue(2))
    assert len(made) <= (time.monotonic() - began) / 0.1 + 1


# --- debounce


def test_the_last_debounced_call_wins_and_delays_the_job(client):
    id = sample_jobs.refresh.enqueue(1, "first")
    assert 20 < waiting(client)[id] <= 30
    client.zadd(SCHEDULED, {id: time.time() + 5})
    assert sample_jobs.refresh.options(description="again", retries=2).enqueue(1, "second") == id
    job = rq_job(client, id)
    assert (job.args, job.description, job.retries_left) == ([1, "second"], "again", 2)
    assert job.get_status() is JobStatus.SCHEDULED
    assert sample_jobs.refresh.enqueue(1, "third") == id
    job = rq_job(client, id)
    assert (job.args, job.description, job.retries_left) == (
        [1, "third"],
        "packmule.tests.jobs.sample_jobs.refresh",
        None,
    )
    assert [20 < due <= 30 for due in waiting(client).values()] == [True]


def test_the_longest_wait_bounds_the_delay_however_many_calls_come(client):
    id = sample_jobs.refresh.enqueue(1)
    since = float(client.hget(keys.job_key(id), "debounced_since"))
    client.hset(keys.job_key(id), "debounced_since", f"{since - 25:.6f}")
    for n in range(3):
        assert sample_jobs.refresh.enqueue(1, str(n)) == id
        assert 5 < waiting(client)[id] <= 15
    client.hset(keys.job_key(id), "debounced_since", f"{since - 100:.6f}")
    assert sample_jobs.refresh.enqueue(1, "last") == id
    assert waiting(client)[id] < 0
    promote(client)
    assert rq_job(client, perform(client)[0]).args == [1, "last"]


def test_without_a_longest_wait_calls_can_delay_the_job_for_ever(client):
    often = sample_jobs.only.options(debounce=30)
    id = often.enqueue(1)
    client.hset(keys.job_key(id), "debounced_since", "1.0")
    assert often.enqueue(1) == id
    assert 20 < waiting(client)[id] <= 30


@pytest.mark.parametrize("state", ["queued", "half a record", "retry", "finished", "canceled"])
def test_a_call_after_the_debounced_job_was_due_makes_a_job_of_its_own(client, state):
    id = sample_jobs.refresh.options(retries=1, retry_intervals=[50]).enqueue(1, "first")
    if state == "canceled":
        cancel(client, id)
    else:
        client.zadd(SCHEDULED, {id: 1})
        promote(client)
    if state in ("retry", "finished"):
        assert perform(client, raised if state == "retry" else done) == [id]
    if state == "half a record":
        client.hdel(keys.job_key(id), "enqueued_at")
    second = sample_jobs.refresh.enqueue(1, "second")
    assert second != id
    assert 20 < waiting(client)[second] <= 30
    assert rq_job(client, id).args == [1, "first"]
    assert sample_jobs.refresh.enqueue(1, "third") == second


def test_a_debounced_job_moves_to_the_queue_of_the_last_call(client):
    id = sample_jobs.refresh.enqueue(1)
    assert sample_jobs.refresh.options(queue="low").enqueue(1) == id
    assert waiting(client) == {}
    assert client.zrange(keys.registry_key("scheduled", "low"), 0, -1) == [id.encode()]
    assert rq_job(client, id).origin == "low"


def test_a_key_of_another_type_is_set_aside_and_the_debounced_job_moves_there(client):
    id = sample_jobs.refresh.enqueue(1, "first")
    client.set(keys.registry_key("scheduled", "low"), "in the way")
    assert sample_jobs.refresh.options(queue="low").enqueue(1, "second") == id
    assert rq_job(client, id).args == [1, "second"]
    assert list(waiting(client)) == []
    assert client.zrange(keys.registry_key("scheduled", "low"), 0, -1) == [id.encode()]
    assert client.get("pm:broken:rq:scheduled:low") == b"in the way"


def test_a_full_memory_leaves_the_debounced_job_unchanged(client):
    id = sample_jobs.refresh.enqueue(1, "first")
    before = client.hgetall(keys.job_key(id)), client.zscore(SCHEDULED, id)
    client.config_set("maxmemory", 1)
    try:
        with pytest.raises(ServerFull, match="maxmemory"):
            sample_jobs.refresh.enqueue(1, "second")
    finally:
        client.config_set("maxmemory", 0)
    assert (client.hgetall(keys.job_key(id)), client.zscore(SCHEDULED, id)) == before


def test_debounced_jobs_expire_counted_from_when_they_are_due(client):
    id = sample_jobs.refresh.options(expires=10).enqueue(1)
    assert abs(float(client.hget(keys.job_key(id), "expires_at")) - time.time() - 40) < 20


# --- many at once


def test_a_thousand_calls_make_one_job_a_key_and_all_return_its_id(client, enqueue):
    calls = [((n % 100, str(n)), {}) for n in range(1000)]
    ids = enqueue.send(sample_jobs.invoice.job, calls)
    assert ids[:100] == queued(client)
    assert ids == ids[:100] * 10
    assert ids.held == frozenset(range(100, 1000))
    assert rq_job(client, ids[0]).args == [0, "0"]
    assert enqueue.send(sample_jobs.invoice.job, calls[:3]) == ids[:3]


def test_the_last_of_a_thousand_debounced_calls_wins_for_each_key(client):
    ids = sample_jobs.refresh.enqueue_many([(n % 100, str(n)) for n in range(1000)])
    assert ids == ids[:100] * 10
    assert list(waiting(client)) == ids[:100]
    assert [rq_job(client, id).args[1] for id in ids[:100]] == [str(n) for n in range(900, 1000)]


def test_equal_calls_at_the_front_are_enqueued_once_in_the_order_of_the_calls(client):
    ids = sample_jobs.only.options(at_front=True).enqueue_many([(n % 300,) for n in range(900)])
    assert ids == ids[:300] * 3
    assert queued(client) == ids[:300]


class Crowd:
    """Processes that make the same calls at the same moment, or until they are killed."""

    def __init__(self, url: str, body: Callable[[], object]) -> None:
        self.url = url
        self.body = body
        self.pids: list[int] = []

    def start(self, count: int) -> None:
        read, write = os.pipe()
        self.pids = [self._fork(read, write) for _ in range(count)]
        os.close(read)
        os.close(write)  # the last writer: all readers see the end, and start

    def _fork(self, read: int, write: int) -> int:
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            with connect(self.url, None) as client:
                Client(client).make_default()
                client.ping()
                os.close(write)
                os.read(read, 1)
                self.body()
                code = 0
        finally:
            os._exit(code)

    def wait(self) -> list[int]:
        return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in self.pids]


def test_fifty_producers_at_once_make_one_job(client, server):
    crowd = Crowd(server.url, lambda: [sample_jobs.only.enqueue(n) for n in range(20)])
    crowd.start(50)
    assert crowd.wait() == [0] * 50
    assert len(queued(client)) == 20
    assert sorted(rq_job(client, id).args[0] for id in queued(client)) == list(range(20))


def test_fifty_producers_at_once_debounce_into_one_job(client, server):
    crowd = Crowd(server.url, lambda: [sample_jobs.refresh.enqueue(1, str(n)) for n in range(20)])
    crowd.start(50)
    assert crowd.wait() == [0] * 50
    (id,) = waiting(client)
    assert rq_job(client, id).args == [1, "19"]


def test_killed_producers_leave_one_job_a_key_and_no_place_without_a_job(client, server):
    def enqueue_for_ever() -> None:
        for n in iter(int, None):
            sample_jobs.invoice.enqueue_many([(key, str(n)) for key in range(10)])
            sample_jobs.refresh.enqueue_many([(key, str(n)) for key in range(10)])

    for _ in range(5):
        crowd = Crowd(server.url, enqueue_for_ever)
        crowd.start(8)
        for number, pid in enumerate(crowd.pids):
            time.sleep(0.02 * (number % 3))
            os.kill(pid, signal.SIGKILL)
        assert crowd.wait() == [-signal.SIGKILL] * 8
        perform(client)  # free places are taken again in the next round
    ids = sample_jobs.invoice.enqueue_many([(key,) for key in range(10)])
    assert queued(client) == ids
    ids = sample_jobs.refresh.enqueue_many([(key,) for key in range(10)])
    assert list(waiting(client)) == ids


# --- a lost reply


@pytest.fixture
def losing(server, client, tmp_path, monkeypatch) -> Iterator[LosingProxy]:
    """A proxy that loses replies, with registered functions enqueueing through it."""
    sample_jobs.noop.enqueue()  # the script is loaded
    client.flushdb()
    proxy = LosingProxy(tmp_path / "proxy.sock", server.socket_path)
    with connect(proxy.url, tmp_path) as through:
        monkeypatch.setattr(Client, "_default", Client(through))
        yield proxy
    proxy.close()


@pytest.mark.parametrize("more", [{}, {"unique_ttl": 60}, {"throttle": 60}])
def test_a_unique_call_resent_after_a_lost_reply_keeps_its_own_job(client, losing, more):
    losing.to_lose = 2
    ids = sample_jobs.only.options(**more).enqueue_many([(1,), (2,), (1,)])
    assert losing.lost == 2
    assert ids == [*queued(client), ids[0]]
    assert ids.held == {2}


@pytest.mark.parametrize("result_ttl", [0, 500])
def test_a_unique_job_that_ended_before_its_call_was_resent_runs_once(client, losing, result_ttl):
    losing.to_lose = 1
    losing.on_loss = lambda: perform(client)
    id = sample_jobs.only.options(result_ttl=result_ttl).enqueue(1)
    assert (losing.lost, queued(client)) == (1, [])
    assert id not in queued(client)


def test_a_call_resent_after_its_job_was_canceled_enqueues_nothing(client, losing):
    losing.to_lose = 1
    losing.on_loss = lambda: cancel(client, "chosen")
    sample_jobs.noop.options(job_id="chosen").enqueue()
    assert (losing.lost, queued(client)) == (1, [])
    assert rq_job(client, "chosen").get_status() == "canceled"
    sample_jobs.noop.options(job_id="chosen").enqueue()  # another call takes the id again
    assert queued(client) == ["chosen"]


def test_a_resent_debounced_call_does_not_undo_a_later_call(client, losing, monkeypatch):
    mine = Client.default()
    other = Client(client)
    id = sample_jobs.refresh.enqueue(1, "first")
    losing.on_loss = lambda: other.enqueue(sample_jobs.refresh, 1, "later")
    losing.to_lose = 1
    assert sample_jobs.refresh.enqueue(1, "second") == id
    assert losing.lost == 1
    assert Client.default() is mine
    assert rq_job(client, id).args == [1, "later"]
    assert list(waiting(client)) == [id]


@pytest.mark.parametrize("result_ttl", [0, 500])
def test_a_resent_debounced_call_whose_job_ended_makes_no_second_job(client, losing, result_ttl):
    call = sample_jobs.refresh.options(result_ttl=result_ttl)

    def run() -> None:
        client.zadd(SCHEDULED, {id: 1})
        promote(client)
        assert perform(client) == [id]

    id = call.enqueue(1, "first")
    losing.on_loss = run
    losing.to_lose = 1
    assert call.enqueue(1, "second") == id
    assert losing.lost == 1
    assert (waiting(client), queued(client)) == ({}, [])


def test_a_resent_first_debounced_call_does_not_undo_a_later_call(client, losing):
    other = Client(client)
    losing.on_loss = lambda: other.enqueue(sample_jobs.refresh, 1, "later")
    losing.to_lose = 1
    id = sample_jobs.refresh.enqueue(1, "first")
    assert list(waiting(client)) == [id]
    assert rq_job(client, id).args == [1, "later"]
    traces = client.keys("pm:gone:*")
    assert traces
    assert all(0 < client.ttl(trace) <= 60 for trace in traces)


# --- places are given up


def test_places_of_jobs_without_a_record_do_not_accumulate(client):
    once = sample_jobs.only.options(result_ttl=0)
    for n in range(30):
        once.enqueue_many([(n * 100 + m,) for m in range(100)])
        assert len(perform(client)) == 100
    assert len(places(client)) < 300
    for n in range(300):
        once.enqueue(10_000 + n)
        perform(client)
    assert len(places(client)) < 20


def test_places_that_are_held_are_never_given_up(client):
    ids = [
        *sample_jobs.only.enqueue_many([(n,) for n in range(50)]),
        *sample_jobs.ping.options(result_ttl=0, queue="low").enqueue_many([(n,) for n in range(50)]),
    ]
    claims = Claims(client, "w2", Strict(["low"]))
    gone = claims.finish_and_claim(claims.next_id(), [], 50).jobs
    claims.finish_and_claim(claims.next_id(), [done(job) for job in gone], 0)
    assert not Job.exists(ids[-1], connection=client)
    sample_jobs.only.options(unique_ttl=0.001, result_ttl=0).enqueue_many([(n,) for n in range(100, 1000)])
    assert sample_jobs.only.enqueue_many([(n,) for n in range(50)]) == ids[:50]
    assert sample_jobs.ping.enqueue_many([(n,) for n in range(50)]) == ids[50:]


def test_a_place_whose_job_holds_another_is_given_up(client):
    id = sample_jobs.only.enqueue(1)
    client.delete(keys.UNIQUE)
    client.hset(keys.UNIQUE, "another", f"{id} 0")
    sample_jobs.only.enqueue(2)
    assert b"another" not in places(client)


def test_a_corrupt_place_is_given_up(client):
    client.hset(keys.UNIQUE, "another", "nonsense")
    sample_jobs.only.enqueue(1)
    assert b"another" not in places(client)


def test_a_corrupt_place_is_free(client):
    id = sample_jobs.only.enqueue(1)
    (key,) = places(client)
    client.copy(keys.job_key(id), keys.job_key(""))
    for nonsense in ("", "a", "a b", " ", " 0", f"{id} ", "a b c", b"\xff\x00"):
        client.hset(keys.UNIQUE, key, nonsense)
        another = sample_jobs.only.enqueue(1)
        assert another not in ("", id)
        assert sample_jobs.only.enqueue(1) == another


# --- invalid keys and rules


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{acount}", "the function has no argument acount; it has a, b"),
        ("{a} {}", "braces contain an argument's name"),
        ("{0}", "braces contain an argument's name"),
        ("{a.real}", "braces contain an argument's name"),
        ("{a}{b}", "put a separator such as : or / before {b}"),
        ("{a", "its braces don't match"),
        ("a}", "its braces don't match"),
        ("{a!r}", "braces contain an argument's name"),
        ("{a:>9}", "braces contain an argument's name"),
    ],
)
def test_a_key_that_the_arguments_cannot_fill_is_refused_by_the_decorator(client, template, message):
    def plain(a: int, b: int = 1) -> int:
        return a

    plain.__qualname__ = "plain"
    with pytest.raises(InvalidJob) as refused:
        job(unique=template)(plain)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    with pytest.raises(InvalidOption, match=r"^unique="):
        sample_jobs.add.options(unique=template).enqueue(1)
    assert client.dbsize() == 0


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"throttle": 1, "debounce": 1}, "debounce or throttle, not both"),
        ({"unique_ttl": 1, "throttle": 1}, "unique_ttl or throttle, not both"),
        ({"debounce_limit": 1}, "give debounce too"),
        ({"debounce": 5, "debounce_limit": 1}, "give at least debounce"),
        ({"debounce": 5, "delay": 1}, "omit delay"),
        ({"debounce": 5, "at": datetime(2030, 1, 1, tzinfo=UTC)}, "omit at"),
        ({"debounce": 5, "job_id": "a"}, "omit job_id"),
    ],
)
def test_rules_that_exclude_each_other_are_refused(said, message):
    with pytest.raises(InvalidOption, match=message):
        Options(**said)


def test_a_default_that_json_cannot_carry_is_refused_as_part_of_a_key(client, monkeypatch):
    def plain(a: int, b: Any = object()) -> int:  # noqa: B008  a sentinel, as such functions have
        return a

    plain.__qualname__ = "sentinel"
    with pytest.raises(InvalidCall, match="its arguments can't be compared"):
        job(unique=True)(plain).enqueue(1)
    assert client.dbsize() == 0
    job(unique="{a}")(plain).enqueue(1)


def test_an_unhashable_default_can_be_part_of_a_key(client):
    def plain(a: int, b: list[int] = [], c: Any = {"x": 1}) -> int:  # noqa: B006  people write such
        return a

    plain.__qualname__ = "mutable"
    for kind in (True, "{a}:{b}"):
        once = job(unique=kind)(plain)
        assert once.enqueue(1) == once.enqueue(1, b=[])
        assert once.enqueue(1, [2]) != once.enqueue(1)


def test_a_corrupt_key_of_places_is_set_aside_and_jobs_are_unique_from_then_on(client):
    client.set(keys.UNIQUE, "in the way")
    id = sample_jobs.only.enqueue(1)
    assert sample_jobs.only.enqueue(1) == id
    assert client.llen("rq:queue:default") == 1
    assert client.get(f"pm:broken:{keys.UNIQUE}") == b"in the way"


# --- cost


def test_a_unique_enqueue_takes_one_script_call_and_a_fixed_number_of_commands(client):
    sample_jobs.only.enqueue(1)
    sample_jobs.only.enqueue(2)

    def ran(call: Callable[[], object]) -> Counter[str]:
        client.config_resetstat()
        call()
        stats = client.info("commandstats")
        return Counter({name.removeprefix("cmdstat_"): each["calls"] for name, each in stats.items()})

    taken = ran(lambda: sample_jobs.only.enqueue(3))
    assert taken["evalsha"] == 1
    assert taken.total() - taken["config|resetstat"] - taken["info"] == 13
    refused = ran(lambda: sample_jobs.only.enqueue(3))
    assert {name for name in refused if name in ("hset", "set", "rpush", "zadd", "del")} == set()
    assert refused.total() - refused["config|resetstat"] - refused["info"] == 7
