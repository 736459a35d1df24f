"""Round trips, commands and moves a job: so that speed and simplicity can't rot unseen."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable

import pytest
from redis import Redis
from redis.connection import AbstractConnection
from rq import Callback, Queue
from rq.serializers import JSONSerializer

from packmule.coordination.cache.cache import Cache
from packmule.coordination.redis.scripts import Script
from packmule.jobs import keys, queues, reader, schedule_store
from packmule.jobs.client import Client
from packmule.jobs.schedule import schedule
from packmule.observe import blocked
from packmule.scheduler.leader import Leadership
from packmule.scheduler.schedules import periodic_enqueuer
from packmule.scheduler.schedules.periodic_enqueuer import PeriodicEnqueuer
from packmule.tests.command_line import ROOT, until
from packmule.tests.worker import executor_jobs, limited_jobs, pool_jobs, talking_jobs
from packmule.worker.order import Strict
from packmule.worker.process import outcome, saying, statistics
from packmule.worker.process.blocking_wait import IdleWait
from packmule.worker.process.claim import Claims
from packmule.worker.process.fetcher import Fetcher
from packmule.worker.process.job_log import JobLog
from packmule.worker.process.outcome import Outcome
from packmule.worker.process.performer import Performer, finished


class Trips:
    """Counts the requests that leave this process: each is a write and a wait."""

    def __init__(self, sent: list[list[bytes]]) -> None:
        self.sent = sent

    def __call__(self) -> int:
        return len(self.sent)


@pytest.fixture
def trips(client: Redis, monkeypatch: pytest.MonkeyPatch) -> Trips:
    sent: list[list[bytes]] = []
    kind = AbstractConnection
    send = kind.send_packed_command

    def count(connection: object, command: list[bytes], *args: object, **options: object) -> object:
        sent.append(command)
        return send(connection, command, *args, **options)

    monkeypatch.setattr(kind, "send_packed_command", count)
    return Trips(sent)


def commands(client: Redis) -> Counter[str]:
    """How often the server has run each command, those inside scripts included."""
    return Counter({name: each["calls"] for name, each in client.info("commandstats").items()})


def test_enqueueing_is_one_trip_and_bulk_one_for_hundreds(client, trips):
    Client(client).make_default()
    pool_jobs.noop.enqueue()  # the script is loaded now
    before = trips()
    pool_jobs.noop.enqueue()
    assert trips() - before == 1
    before = trips()
    pool_jobs.noop.enqueue_many([()] * 1000)
    assert trips() - before == 2


def test_unique_enqueues_take_no_trip_more(client, trips):
    Client(client).make_default()
    pool_jobs.noop.enqueue()  # the script is loaded now
    for rule in ({"unique": True}, {"unique_ttl": 60}, {"throttle": 60}, {"debounce": 60}):
        before = trips()
        once = pool_jobs.noop.options(**rule)
        once.enqueue()
        once.enqueue()
        once.enqueue_many([()] * 1000)
        assert trips() - before == 4


def test_an_enqueued_job_takes_a_fixed_few_commands(client):
    Client(client).make_default()
    pool_jobs.noop.enqueue()
    before = commands(client)
    pool_jobs.noop.enqueue()
    ran = commands(client) - before
    del ran["cmdstat_info"]
    assert ran == Counter(
        cmdstat_evalsha=1,
        cmdstat_time=1,
        cmdstat_exists=1,
        cmdstat_get=1,
        cmdstat_hset=1,
        cmdstat_sadd=1,
        cmdstat_rpush=1,
        cmdstat_xadd=1,
    )


def test_a_claim_is_one_trip_however_many_jobs_it_has(client, trips):
    Client(client).make_default()
    pool_jobs.noop.enqueue_many([()] * 64)
    claims = Claims(client, "w1", Strict(["high", "default", "low"]))
    performer = Performer(lambda *report: None, lambda *save: None)
    claims.finish_and_claim(claims.next_id(), [], 1)  # the script is loaded now
    before = trips()
    claim = claims.finish_and_claim(claims.next_id(), [], 32)
    outcomes = [performer.perform(performer.prepare(job)) for job in claim.jobs]
    claims.finish_and_claim(claims.next_id(), outcomes, 31)
    assert trips() - before == 2
    assert client.zcard("rq:finished:default") == 32


def test_a_performed_job_takes_a_bounded_number_of_commands(client):
    Client(client).make_default()
    pool_jobs.noop.enqueue_many([()] * 101)
    claims = Claims(client, "w1", Strict(["default"]))
    performer = Performer(lambda *report: None, lambda *save: None)
    claims.finish_and_claim(claims.next_id(), [], 1)
    before = commands(client)
    claim = claims.finish_and_claim(claims.next_id(), [], 100)
    claims.finish_and_claim(
        claims.next_id(), [performer.perform(performer.prepare(job)) for job in claim.jobs], 0
    )
    ran = commands(client) - before
    del ran["cmdstat_info"], ran["cmdstat_hincrby"]  # statistics: the more, the more the jobs' times differ
    assert ran.total() / 100 < 6.6  # HLEN and a short HMGET take less time than one HMGET of all fields
    assert ran["cmdstat_evalsha"] == 2


def test_a_bulk_enqueue_takes_one_command_a_job_and_a_fixed_few(client):
    Client(client).make_default()
    pool_jobs.noop.enqueue()
    before = commands(client)
    pool_jobs.noop.enqueue_many([()] * 500)
    ran = commands(client) - before
    assert (ran["cmdstat_hset"], ran["cmdstat_xadd"]) == (500, 16)
    assert ran.total() - ran["cmdstat_info"] <= 500 + 16 + 7


HERE = "packmule.tests.worker.callback_jobs"


def enqueue_with_callback(client: Redis) -> None:
    queue = Queue("default", connection=client, serializer=JSONSerializer)
    queue.enqueue(f"{HERE}.body", on_success=Callback(f"{HERE}.succeeded"))


KINDS: dict[str, tuple[Callable[[Redis], object], int, int, int]] = {
    "plain": (lambda _: pool_jobs.noop.enqueue(), 3, 34, 1100),
    "isolated": (lambda _: executor_jobs.enter_isolated.enqueue("x", "y"), 3, 34, 1150),
    "unique": (lambda _: pool_jobs.noop.options(unique=True).enqueue(), 3, 39, 1200),
    "prioritised": (lambda _: pool_jobs.noop.options(priority=9).enqueue(), 3, 65, 1100),
    "limited": (lambda _: limited_jobs.two_a_tenant.enqueue("x", "y", "z"), 3, 43, 1400),
    "batched": (lambda _: pool_jobs.noop.options(batch="b1").enqueue(), 3, 43, 1200),
    "callback": (enqueue_with_callback, 3, 53, 1150),
}
"""How a job of each kind is enqueued, and at most how many trips, commands and bytes it takes to its end."""


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_of_each_kind_takes_a_bounded_number_of_trips_commands_and_bytes(
    client, trips, monkeypatch, kind
):
    monkeypatch.setattr(statistics, "INTERVAL", 600)  # what travels once in a while is no job's
    monkeypatch.setattr(statistics, "INDEX_INTERVAL", 600)
    enqueue, *most = KINDS[kind]
    Client(client).make_default()
    client.hset("pm:batch:b1", mapping={"created": 1, "total": 0})
    claims = Claims(client, "w1", Strict(["default"]))

    def perform() -> None:
        outcomes: list[Outcome] = []
        while jobs := claims.finish_and_claim(claims.next_id(), outcomes, 1).jobs:
            outcomes = [outcome.settled(job) if job.due else finished(job, b"", 1.0, 1.0) for job in jobs]

    for _ in range(2):  # the scripts are loaded then, and the first statistics were sent
        enqueue(client)
        perform()
    is_rqs = kind == "callback"
    if is_rqs:  # to what RQ sends, Sentry may add
        enqueue(client)
    before = commands(client)
    trips.sent.clear()
    if not is_rqs:
        enqueue(client)
    perform()
    sent = list(trips.sent)
    took = len(sent), (commands(client) - before).total() - 1, sum(len(b"".join(each)) for each in sent)
    assert all(each <= bound for each, bound in zip(took, most, strict=True)), (took, sent)


@pytest.mark.parametrize("says", [False, True])
def test_what_a_job_says_goes_in_the_trip_that_acknowledges_it(client, trips, monkeypatch, says):
    monkeypatch.setattr(saying, "OUTPUT_SECONDS", 600)  # for a busy machine
    Client(client).make_default()
    fetcher = Fetcher(client, "w1", Strict(["default"]), ["default"], [], lambda claim: None, JobLog())
    performer = Performer(lambda *report: None, lambda *save: None, hear=fetcher.saying.hear)

    def to_its_end() -> None:
        talking_jobs.talk.enqueue(*((3, 1) if says else (0, 0)))
        (job,) = fetcher.exchange([], 1).jobs
        fetcher.exchange([performer.perform(performer.prepare(job))], 0)

    to_its_end()  # the scripts are loaded
    before, had = commands(client), trips()
    to_its_end()
    assert trips() - had == 3  # an enqueue, a claim and an acknowledgement
    ran = commands(client) - before
    assert ran["cmdstat_evalsha"] == 3
    assert ran.total() - 1 <= (55 if says else 34)


def idle(client: Redis, name: str) -> IdleWait:
    """A worker's moves, begun and under way."""
    claims = Claims(client, name, Strict(["default"]))
    claims.finish_and_claim(claims.next_id(), [], 1)
    wake, waker = os.pipe()
    os.close(waker)  # which ends a wait at once
    waits = IdleWait(client, name, claims, [keys.queue_key("default")], [wake])
    assert waits.wait().is_empty
    os.close(wake)
    waits.wake = []
    return waits


def test_a_plain_job_makes_few_moves_between_few_files_of_the_worker():
    command = [sys.executable, "benchmarks/journey.py"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=100).stdout
    moves, files = re.findall(r"under worker/: (\d+) moves between (\d+) files", said)[0]
    assert int(moves) <= 40, said
    assert int(files) <= 8, said


@pytest.mark.parametrize(
    ("package", "name", "most"), [("jobs", "enqueue", 13), ("worker.process", "finish_and_claim", 20)]
)
def test_the_script_of_a_plain_job_creates_few_functions(package, name, most):
    before, _, rest = Script(package, name).source.partition("\nrare = function()\n")
    _, _, behind = rest.partition("\nreturn rare_made\nend\n")
    code = re.sub(r"--[^\n]*", "", before + behind)
    assert len(re.findall(r"\bfunction\b", code)) <= most


def test_an_idle_worker_needs_no_trip_to_have_a_pushed_job_in_hand(client, trips):
    Client(client).make_default()
    waits = idle(client, "w1")
    id = pool_jobs.noop.enqueue()
    before = trips()
    assert [job.id for job in waits.wait().jobs] == [id]
    assert trips() == before
    waits.close()


def test_a_push_wakes_one_of_many_idle_workers(client):
    Client(client).make_default()
    all_waits = [idle(client, f"w{number}") for number in range(20)]
    before = commands(client)
    pool_jobs.noop.enqueue_many([()] * 5)
    assert sorted(len(waits.arrived().jobs) for waits in all_waits) == [0] * 15 + [1] * 5
    assert sum(waits.is_under_way for waits in all_waits) == 15
    assert (commands(client) - before)["cmdstat_evalsha"] == 1 + 5
    for waits in all_waits:
        waits.close()


def test_reading_a_job_and_counting_queues_is_one_trip_each(client, trips):
    Client(client).make_default()
    id = pool_jobs.noop.enqueue()
    before = trips()
    reader.read(client, id)
    assert trips() - before == 1
    queues.depths(client, ["high", "default", "low"])
    assert trips() - before == 2


def test_what_waits_behind_others_and_for_what_is_a_fixed_few_trips(client, trips):
    before = trips()
    assert blocked.behind(client, ["high", "default", "low"])["default"] == 0
    assert trips() - before == 1
    Client(client).make_default()
    limited_jobs.in_turn.enqueue_many([("p", str(number % 400)) for number in range(1200)])
    before = trips()
    assert blocked.behind(client, ["high", "default", "low"])["default"] == 800
    assert trips() - before == 2
    blocked.waiting(client, ["high", "default", "low"], 100)
    assert trips() - before <= 2 + 2 + 5


def test_a_cache_hit_is_one_trip_with_tags_too_and_a_miss_three(client, trips):
    with Cache(client, "shop") as cache:
        cache.put("warm", 0, ttl=60)  # a connection is made, and the scripts are loaded
        for tags in ((), ("a", "b")):
            key = f"a{len(tags)}"
            before = trips()
            cache.get_or_compute(key, lambda: 1, ttl=60, tags=tags)
            assert trips() - before == 3
            cache.get_or_compute(key, lambda: 2, ttl=60, tags=tags)
            assert trips() - before == 4
            assert cache.get(key, tags=tags) == 1
            assert trips() - before == 5
        before = trips()
        assert cache.get("a2") == 1
        assert trips() - before == 2  # for its tags were not named
        ran = commands(client)
        cache.get("a2", tags=["a", "b"])
        assert commands(client) - ran == Counter(cmdstat_mget=1, cmdstat_pttl=1, cmdstat_info=1)


def test_schedules_that_are_due_at_once_share_a_few_trips(client, trips, monkeypatch):
    monkeypatch.setattr(periodic_enqueuer, "LONGEST_ROUND", 60)  # seconds, for a busy machine
    leadership = Leadership(client, term=60)
    until(leadership.hold, "the lead")
    enqueuer = PeriodicEnqueuer(Client(client))
    for number in range(90):
        schedule_store.put(client, schedule(f"s{number}", {"job": pool_jobs.noop.job.name, "every": "1h"}))
    enqueuer.round(leadership.check())  # the scripts are loaded, and it is known when they are due
    enqueuer.ahead += 3600
    before = trips()
    enqueuer.round(leadership.check())
    assert trips() - before == 2
    assert client.llen(keys.queue_key("default")) == 90
