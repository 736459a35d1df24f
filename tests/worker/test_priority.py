"""Priorities within a queue: the order of claims, scouts that wake workers, and the share of low bands."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from hashlib import sha1
from pathlib import Path

import pytest
from redis import Redis
from rq import Queue, SimpleWorker
from rq.job import Job
from rq.serializers import JSONSerializer

from packmule import Flow
from packmule.coordination.limits.rate import Rate
from packmule.jobs import control, keys, queues, reader
from packmule.jobs.batch import Batch
from packmule.jobs.client import Client
from packmule.observe import events
from packmule.scheduler.maintenance.promote import promote
from packmule.tests.test_trips import idle
from packmule.tests.worker import limited_jobs, pool_jobs, step_jobs
from packmule.tests.worker.pools import children_of, ended, lines, pool, until
from packmule.tests.worker.step_runs import Runs
from packmule.worker.order import Strict
from packmule.worker.process import claim as claiming
from packmule.worker.process import outcome, performer
from packmule.worker.process.claim import Claims
from packmule.worker.process.claimed import Claimed
from packmule.worker.rescue import rescue

PLAIN = keys.queue_key("default")
LISTS = keys.queue_keys("default")
HIGHEST, HIGH, _, LOW, LOWEST = LISTS


@pytest.fixture
def claims(client: Redis) -> Claims:
    Client(client).make_default()
    return Claims(client, "w1", Strict(["high", "default", "low"]))


@pytest.fixture
def in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """No claim serves a lower band out of its turn."""
    script = claiming._finish_and_claim
    source = script.source.replace("clock_microseconds % 1024", "0")
    assert source != script.source
    monkeypatch.setattr(script, "_sha", sha1(source.encode(), usedforsecurity=False).hexdigest())
    monkeypatch.setattr(script, "_source", source)


def take(claims: Claims, want: int = 1) -> list[Claimed]:
    return claims.finish_and_claim(claims.next_id(), [], want).jobs


def claim(claims: Claims, want: int = 1) -> list[str]:
    return [job.id for job in take(claims, want)]


def send(priority: int, **options: object) -> str:
    return pool_jobs.add.options(priority=priority, **options).enqueue(priority)


def listed(client: Redis, key: str) -> list[str]:
    return [id.decode() for id in client.lrange(key, 0, -1)]


def nothing_waits(client: Redis) -> bool:
    return client.exists(*LISTS, "pm:bands") == 0


@pytest.mark.usefixtures("in_order")
@pytest.mark.parametrize("want", [1, 3, 15])
def test_jobs_are_claimed_by_their_bands_and_in_their_order_within_one(client, claims, want):
    ids = {priority: send(priority) for priority in (0, -100, 100, -1, 50, -51, 51, 1, -50)}
    expected = [ids[priority] for priority in (100, 51, 50, 1, 0, -1, -50, -100, -51)]
    assert [id for _ in range(0, 9, want) for id in claim(claims, want)] == expected
    assert claim(claims) == []
    assert nothing_waits(client)


@pytest.mark.usefixtures("in_order")
def test_jobs_of_all_bands_of_a_queue_come_before_those_of_the_next_queue(claims):
    other = send(100, queue="low")
    ids = [send(5), send(-5)]
    assert claim(claims, 3) == [*ids, other]


@pytest.mark.usefixtures("in_order")
def test_a_scout_that_was_overtaken_goes_back_to_the_front_of_its_band(client, claims):
    low, lower = send(-1), send(-2)
    assert listed(client, PLAIN) == [low]
    plain, high = send(0), send(1)
    assert claim(claims, 2) == [high, plain]
    assert claim(claims, 2) == [low, lower]


@pytest.mark.usefixtures("in_order")
def test_at_front_is_in_front_of_the_jobs_own_band(claims):
    first, second = send(3), send(60)
    assert claim(claims, 2) == [second, first]
    first, second = send(3), send(3)
    in_front, plain = send(9, at_front=True), send(0, at_front=True)
    other = send(0)
    assert claim(claims, 5) == [in_front, first, second, plain, other]


@pytest.mark.usefixtures("in_order")
def test_bulk_jobs_have_the_priority_of_their_options_and_keep_their_order(claims):
    plain = pool_jobs.add.enqueue_many([(1,), (2,)])
    high = pool_jobs.add.options(priority=1).enqueue_many([(number,) for number in range(600)])
    assert [id for _ in range(61) for id in claim(claims, 10)] == [*high, *plain]


def test_a_queue_is_plain_again_once_its_bands_are_empty(client, claims):
    plain = pool_jobs.add.enqueue_many([(1,)] * 9)
    high, low = send(1), send(-1)
    control.cancel(client, low)
    assert high in claim(claims, 2)
    assert client.exists("pm:bands") == 0
    assert len(claim(claims, 9)) == len(plain) - 1


def test_each_of_many_workers_claims_other_jobs(client, claims):
    ids = [send(priority) for priority in (0, 5, -5, 100, -100) * 20]
    workers = [Claims(client, f"w{number}", Strict(["default"])) for number in range(5)]
    found = [id for _ in range(20) for each in workers for id in claim(each)]
    assert sorted(found) == sorted(ids)
    assert nothing_waits(client)


def test_several_workers_perform_the_better_jobs_first(server, client, tmp_path):
    Client(client).make_default()
    notes = tmp_path / "notes"
    queues.pause(client, "default")
    for priority in (-100, 0, 100):
        calls = [(str(notes), f"{priority}")] * 60
        pool_jobs.note.options(priority=priority).enqueue_many(calls)
    with pool(server, 3, most=1):
        until(lambda: client.scard(keys.WORKERS) == 3)
        queues.resume(client, "default")
        until(lambda: len(lines(notes)) == 180)
    begun = lines(notes)
    assert begun[:60].count("100") > 40 < begun[-60:].count("-100")


# Scouts


def test_a_push_to_bands_wakes_as_many_idle_workers_as_it_has_jobs(client):
    Client(client).make_default()
    all_waits = [idle(client, f"w{number}") for number in range(8)]
    pool_jobs.noop.options(priority=7).enqueue_many([()] * 3)
    pool_jobs.noop.options(priority=-7).enqueue_many([()] * 2)
    assert sorted(len(waits.arrived().jobs) for waits in all_waits) == [0] * 3 + [1] * 5
    assert nothing_waits(client)
    for waits in all_waits:
        waits.close()


def test_idle_workers_perform_as_many_jobs_at_once_whatever_their_priorities(server, client, tmp_path):
    Client(client).make_default()
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    with pool(server, 4):
        until(
            lambda: (
                len([each for each in client.client_list() if each["name"].startswith("packmule-wait")]) == 12
            )
        )
        ids = [
            pool_jobs.note_when_told.options(priority=priority).enqueue(str(notes), str(gate), str(priority))
            for priority in (-100, 0, 1, 100)
        ]
        until(lambda: len(lines(notes)) == 4)
        gate.touch()
        assert {ended(client, id).status for id in ids} == {"finished"}
    assert nothing_waits(client)


def test_a_scout_that_ended_meanwhile_sends_the_next_one(client):
    Client(client).make_default()
    gone, there = send(2), send(2)
    client.delete(keys.job_key(gone))  # it was the scout
    waits = idle(client, "w1")
    assert [job.id for job in take(waits.claims)] == []
    waits.close()
    assert reader.read(client, there).status == "queued"


# Shares


@pytest.mark.parametrize(("want", "others"), [(1, (-100, 0, 1)), (64, (-100,)), (5, (0,))])
def test_about_one_job_in_16_is_of_a_lower_band_however_many_better_jobs_wait(client, claims, want, others):
    jobs = 3200
    pool_jobs.add.options(priority=100).enqueue_many([(1,)] * jobs)
    ids = {each: set(pool_jobs.add.options(priority=each).enqueue_many([(1,)] * 400)) for each in others}
    found = [id for _ in range(0, jobs, want) for id in claim(claims, want)]
    counts = {priority: len(each.intersection(found)) for priority, each in ids.items()}
    assert jobs / 16 * 0.6 < sum(counts.values()) < jobs / 16 * 1.4  # six deviations
    assert all(count > jobs / 16 / len(others) / 3 for count in counts.values())


# Where jobs go back, and where they are looked for


@pytest.mark.usefixtures("in_order")
def test_returned_retried_and_rescued_jobs_go_back_to_their_bands(client, claims):
    ids = [send(priority, retries=1, retry_intervals=[0]) for priority in (70, 7, -7, -70)]
    jobs = take(claims, 4)
    now = time.time()
    outcomes = [
        outcome.returned(jobs[0]),
        outcome.failed(jobs[1], "it broke", now - 1, now, retry=True),
        outcome.again(jobs[2], "once more", now - 1, now, 0, 0),
    ]
    claims.finish_and_claim(claims.next_id(), outcomes, 0)
    assert rescue(client, "w1", "returned").back == [ids[3]]
    assert [listed(client, key) for key in LISTS] == [[], [ids[1]], [ids[0]], [ids[2]], [ids[3]]]
    assert claim(claims, 4) == ids


def test_a_job_whose_worker_died_before_its_claim_goes_back_to_its_band(client, claims):
    first, second = send(8), send(8)
    client.lmove(PLAIN, keys.waiting_key("w1"), "LEFT", "RIGHT")
    assert rescue(client, "w1", "vanished").back == [first]
    assert (listed(client, PLAIN), listed(client, HIGH)) == ([first], [second])


@pytest.mark.usefixtures("in_order")
def test_a_scheduled_job_has_its_priority_once_it_is_due(client, claims):
    plain = send(0)
    later = [send(priority, delay=0.001) for priority in (1, -1, 1)]
    front = send(1, delay=0.001, at_front=True)
    grouped = limited_jobs.in_turn.options(priority=51, delay=0.001).enqueue("p", "a")
    until(lambda: promote(client) is None)
    assert claim(claims, 6) == [grouped, front, later[0], later[2], plain, later[1]]


@pytest.mark.parametrize("priority", [-60, 60])
def test_a_job_is_canceled_in_its_band_or_as_a_scout_and_retried(client, claims, priority):
    scout, other = send(priority), send(priority)
    for id in (other, scout):
        assert control.cancel(client, id) == "canceled"
    assert client.exists(*LISTS) == 0
    for id in (other, scout):
        control.retry(client, id)
    assert claim(claims, 2) == [other, scout]


def test_canceling_a_scout_sends_the_next_one(client, claims):
    scout, other = send(5), send(5)
    control.cancel(client, scout)
    assert listed(client, PLAIN) == [other]
    control.cancel(client, other)
    assert nothing_waits(client)


def test_canceling_the_last_job_of_a_band_that_has_no_scout_leaves_the_queue_plain(client, claims):
    id = send(5)
    client.rpush(HIGH, client.lpop(PLAIN))
    control.cancel(client, id)
    assert nothing_waits(client)


def test_a_job_that_rq_canceled_in_its_band_is_passed_over_and_retried_once(client, claims):
    send(5)
    id = send(5)
    Job.fetch(id, client, JSONSerializer).cancel()
    assert listed(client, HIGH) == [id]
    control.retry(client, id)
    assert listed(client, HIGH) == [id]
    Job.fetch(id, client, JSONSerializer).cancel()
    assert id not in claim(claims, 5)


def test_a_canceled_id_that_is_enqueued_again_waits_in_the_band_of_its_new_priority(client, claims):
    id = send(5, job_id="a")
    client.hset(keys.job_key(id), "status", "canceled")
    other = send(50)
    assert send(-5, job_id="a") == id
    assert (listed(client, PLAIN), listed(client, LOW)) == ([other], [id])


def test_an_enqueue_that_is_sent_again_enqueues_nothing(client, claims):
    assert [send(30, job_id="b"), send(30, job_id="b"), send(-30, job_id="b")] == ["b"] * 3
    assert sum(map(client.llen, LISTS)) == 1


# Together with what else may hold a job up


def test_a_paused_queue_keeps_the_jobs_of_its_bands(client, claims):
    ids = [send(priority) for priority in (-1, 1, 100)]
    queues.pause(client, "default")
    assert claim(claims, 5) == []
    client.lmove(PLAIN, keys.waiting_key("w1"), "LEFT", "RIGHT")
    assert claims.claim_moved(0, "m1").is_empty
    assert queues.depths(client, ["default"])["default"]["queued"] == 3
    queues.resume(client, "default")
    assert sorted(claim(claims, 5)) == sorted(ids)


def test_idle_workers_take_the_jobs_of_bands_when_a_pause_ends(server, client):
    Client(client).make_default()
    with pool(server, 2):
        until(lambda: client.scard(keys.WORKERS) == 2)
        queues.pause(client, "default")
        ids = [send(priority) for priority in (-100, 100, 1)]
        assert ended(client, send(1, queue="low")).status == "finished"
        queues.resume(client, "default")
        assert {ended(client, id).status for id in ids} == {"finished"}


def test_a_queues_rate_holds_for_all_of_its_bands_together(client, claims):
    queues.set_rate(client, "default", Rate.parse("2/h burst 2"))
    for priority in (-100, 100, 1, 0):
        send(priority)
    assert len(claim(claims, 4)) == 2
    assert claim(claims, 4) == []


@pytest.mark.usefixtures("in_order")
def test_a_group_waits_in_the_band_of_its_first_job(client, claims):
    jobs = limited_jobs.in_turn
    first, urgent = jobs.enqueue("p", "a"), jobs.options(priority=90).enqueue("p", "a")
    plain = send(0)
    assert claim(claims) == [first]  # `urgent` is behind it in their group
    assert claim(claims, 2) == [urgent, plain]
    assert nothing_waits(client)


@pytest.mark.usefixtures("in_order")
def test_a_claim_also_takes_a_job_that_follows_in_a_better_band(client, claims):
    first, second = (limited_jobs.in_turn.options(priority=each).enqueue("p", "a") for each in (-60, 60))
    Job.fetch(first, client, JSONSerializer).cancel()
    client.rpush(LOWEST, first)  # a cancel of RQ's leaves it in its band, unless it was the scout
    client.hset("pm:bands", PLAIN, "")
    assert claim(claims) == [second]


@pytest.mark.usefixtures("in_order")
def test_a_limited_job_that_was_blocked_goes_on_in_its_band(client, claims):
    jobs = limited_jobs.alone.options(priority=-9)
    first, second = jobs.enqueue("p", "x"), jobs.enqueue("p", "y")
    (job,) = take(claims, 5)
    assert job.id == first
    plain = send(0)
    claims.finish_and_claim(claims.next_id(), [performer.finished(job, b"1", 1.0, 2.0)], 0)
    assert claim(claims, 5) == [plain, second]


def test_a_singleton_that_replaces_finds_the_other_in_its_band(client, claims):
    send(100)
    old = limited_jobs.replaces.options(priority=40).enqueue("p", "old")
    new = limited_jobs.replaces.options(priority=-40).enqueue("p", "new")
    assert reader.read(client, old).status == "canceled"
    assert (listed(client, HIGH), listed(client, LOW)) == ([], [new])


@pytest.mark.usefixtures("in_order")
def test_a_batch_holds_and_cancels_jobs_with_priorities_and_its_callback_has_its_own(client, claims):
    batch = Batch.create(on_complete=pool_jobs.add.options(priority=77).prepare(1))
    send(99)
    first = send(3, batch=batch.id)
    second = send(-3, batch=batch.id)
    batch.pause()
    assert len(claim(claims, 5)) == 1
    batch.resume()
    assert (listed(client, PLAIN), listed(client, LOW)) == ([first], [second])
    send(99)
    batch.cancel()
    _, callback = client.lrange(HIGHEST, 0, -1)
    assert client.hget(keys.job_key(callback.decode()), "priority") == b"77"
    assert callback.decode() in claim(claims, 10)


def test_a_purge_deletes_the_jobs_of_all_bands(client, claims):
    ids = [send(priority) for priority in (0, -100, 100, -1, 1) * 3]
    assert queues.purge(client, "default") == 15
    assert client.exists(*LISTS, *map(keys.job_key, ids), "pm:bands") == 0
    assert claim(claims) == []


def test_all_bands_of_a_queue_are_one_queue_to_those_who_look(client, claims):
    first = send(-1)
    time.sleep(0.02)
    ids = [send(1), send(-100), send(100)]
    assert queues.names(client) == ["default"]
    assert [reader.read(client, id).priority for id in (first, *ids)] == [-1, 1, -100, 100]
    assert queues.depths(client, ["default"])["default"]["queued"] == 4
    assert queues.ages(client, ["default"])["default"] >= 0.02
    assert sorted(reader.ids(client, "default", "queued", 10)) == sorted([first, *ids])
    assert len(reader.ids(client, "default", "queued", 3)) == 3


def test_rq_sees_the_bands_as_queues_and_its_workers_perform_what_is_in_the_queue_itself(client, claims):
    pool_jobs.noop.options(priority=10).enqueue_many([()] * 2)
    found = {each.name: each.count for each in Queue.all(client, JSONSerializer)}
    assert found == {"default": 1, "default,+1": 1}
    worker = SimpleWorker(["default"], connection=client, serializer=JSONSerializer)
    worker.work(burst=True)
    assert len(claim(claims, 5)) == 1


@pytest.mark.usefixtures("in_order")
def test_a_node_of_a_flow_and_a_job_that_gets_its_signal_wait_in_their_bands(client, claims):
    runs = Runs(client, "w2")
    waiting = step_jobs.waits.options(priority=88).enqueue("/dev/null")
    runs.once()
    with Flow() as flow:
        first = flow.add(pool_jobs.add.call(1))
        node = flow.add(pool_jobs.add.options(priority=-8).call(2), after=first)
    runs.once()
    other = send(0)
    assert waiting.signal("approved") == "woken"
    assert claim(claims, 5) == [waiting, other, node]


# What goes wrong


@pytest.mark.parametrize("key", LISTS)
def test_a_list_of_another_type_is_set_aside_and_stops_nobody(client, claims, key):
    client.set(key, "garbage")
    ids = [send(priority) for priority in (0, 60, 6, -6, -60)]
    assert sorted(claim(claims, 9)) == sorted(ids)
    client.set(key, "garbage")
    id = send(6)
    assert claim(claims, 9) == [id]
    client.set(key, "garbage")
    assert queues.depths(client, ["default"])["default"]["queued"] == 0
    assert reader.ids(client, "default", "queued", 5) == []
    assert client.get(f"pm:broken:{key}") == b"garbage"


def test_the_set_of_lists_with_bands_may_be_of_another_type_or_lost(client, claims):
    client.set("pm:bands", "garbage")
    ids = [send(5), send(6)]
    assert claim(claims, 2) == ids
    ids = [send(5), send(6), send(7)]
    client.delete("pm:bands", PLAIN)
    assert claim(claims, 5) == []
    promote(client)  # a scheduler finds them
    assert claim(claims, 5) == ids[1:]


@pytest.mark.usefixtures("in_order")
@pytest.mark.parametrize("value", ["", "nan", "high", "1e999", b"\xff", "-1e999", "7"])
def test_a_priority_that_somebody_wrote_into_a_record_loses_no_job(client, claims, value):
    id, other = send(5), send(5)
    client.hset(keys.job_key(id), "priority", value)
    jobs = take(claims, 2)
    assert sorted(job.id for job in jobs) == sorted([id, other])
    claims.finish_and_claim(claims.next_id(), [outcome.returned(job) for job in jobs], 0)
    assert sorted(claim(claims, 2)) == sorted([id, other])
    assert -100 <= reader.read(client, id).priority <= 100
    assert [event.type for event in events.read(client) if event.type == "quarantined"] == []


def test_killed_workers_lose_no_job_of_a_band(server, client, tmp_path: Path):
    Client(client).make_default()
    notes = tmp_path / "notes"
    with pool(server, 3) as supervisor:
        until(lambda: client.scard(keys.WORKERS) == 3)
        ids = []
        for number in range(120):
            priority = (0, 100, -100, 1, -1)[number % 5]
            ids.append(pool_jobs.note.options(priority=priority).enqueue(str(notes), str(number)))
            if number % 20 == 10:
                until(lambda: children_of(supervisor.pid))
                os.kill(children_of(supervisor.pid)[0], signal.SIGKILL)
        assert {ended(client, id).status for id in ids} == {"finished"}
    assert set(lines(notes)) == {str(number) for number in range(120)}
    assert nothing_waits(client)


def test_a_killed_pool_loses_no_job_of_a_band(server, client):
    Client(client).make_default()
    with pool(server, 2) as supervisor:
        until(lambda: client.scard(keys.WORKERS) == 2)
        ids = [send(priority) for priority in (100, -100, 1, 0) * 50]
        os.killpg(supervisor.pid, signal.SIGKILL)
        supervisor.wait()
    for worker in client.zrange(keys.LEASES, 0, -1):
        rescue(client, worker.decode(), "vanished")
    with pool(server, 2):
        assert Counter(ended(client, id).status for id in ids) == Counter(finished=200)
    assert nothing_waits(client)


def test_a_full_memory_stops_neither_a_promotion_nor_a_cancel(client, claims):
    scout, other = send(5), send(5)
    client.delete("pm:bands")
    client.config_set("maxmemory", 1)
    try:
        assert promote(client) is None
        assert [control.cancel(client, id) for id in (scout, other)] == ["canceled"] * 2
    finally:
        client.config_set("maxmemory", 0)
    assert client.exists(*LISTS) == 0
