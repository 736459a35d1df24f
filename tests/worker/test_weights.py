"""Weighted limits: jobs take slots and tokens by what they cost."""

from __future__ import annotations

import inspect
import math
import os
import signal
import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer

from packmule import InvalidCall, current
from packmule.jobs import control, keys, queues, reader, slots
from packmule.jobs.limits import InvalidLimit, job_limits
from packmule.observe.blocked import waiting
from packmule.scheduler.maintenance.repair import GroupRepair, OrphanRepair
from packmule.tests.worker import weighted_jobs
from packmule.tests.worker.pools import children_of, drained, ended, lines, pool, until
from packmule.tests.worker.test_limits import Desk
from packmule.tests.worker.weighted_jobs import (
    MOST,
    anything,
    complete,
    complete_async,
    complete_isolated,
    decode,
    decode_alone,
    decode_noting,
    decode_rarely,
)
from packmule.worker.process import outcome
from packmule.worker.process.claimed import Claimed
from packmule.worker.process.progress import ProgressStore
from packmule.worker.rescue import rescue

pytestmark = pytest.mark.usefixtures("produce")

KEY = f"{weighted_jobs.__name__}.decode"
HOLDERS, WEIGHTS, BLOCKED = keys.holders_key(KEY), keys.weights_key(KEY), keys.blocked_key(KEY)
BUCKET = f"pm:rate:jobs:{weighted_jobs.__name__}.complete:m"
INTERVAL = 3600 / 100
"""Seconds that one token of `complete` takes."""


@pytest.fixture
def desk(client: Redis) -> Desk:
    return Desk(client)


def ids(jobs: list[Claimed]) -> list[str]:
    return [job.id for job in jobs]


def taken(client: Redis, key: str = BUCKET) -> int:
    """Tokens that are missing from a bucket."""
    seconds, micros = client.time()
    full_at = int(client.get(key) or 0) / 1e6
    return round(max(0.0, full_at - (seconds + micros / 1e6)) / INTERVAL)


def weights(client: Redis) -> dict[str, int]:
    return {name.decode(): int(value) for name, value in client.hgetall(WEIGHTS).items()}


def test_jobs_run_at_once_while_their_costs_fit(client, desk):
    first, second, third, fourth = (decode.enqueue(size) for size in (60, 40, 30, 30))
    running = desk.claim()
    assert ids(running) == [first, second]
    assert weights(client) == {first: 59, second: 39, "": 98}
    assert ids(desk.finish(running[1], most=10)) == [third]
    assert ids(desk.finish(running[0], most=10)) == [fourth]


def test_a_limit_without_weights_writes_nothing_of_them(client, desk):
    decode.enqueue(1)
    (job,) = desk.claim()
    assert client.exists(WEIGHTS) == 0
    desk.finish(job)
    assert client.exists(HOLDERS, WEIGHTS) == 0


def test_nothing_is_left_once_all_have_ended(client, desk):
    for size in (50, 0.5, 12.25):
        decode.enqueue(size)
    jobs = desk.claim()
    assert weights(client) == {jobs[0].id: 49, jobs[2].id: 12, "": 61}
    desk.finish(*jobs)
    assert client.exists(HOLDERS, WEIGHTS, BLOCKED, f"pm:turn:{KEY}") == 0


def test_small_jobs_do_not_keep_a_large_one_waiting(client, desk):
    decode.enqueue(10, "small")
    (running,) = desk.claim()
    large = decode.enqueue(MOST, "large")
    small = [decode.enqueue(10, f"small {number}") for number in range(5)]
    assert desk.claim() == []
    small += [decode.enqueue(10, f"later {number}") for number in range(3)]
    assert desk.claim(worker="w2") == []
    (next,) = desk.finish(running, most=10)
    assert next.id == large
    assert sorted(ids(desk.finish(next, most=10))) == sorted(small)


def test_a_large_job_keeps_its_place_while_slots_come_free_one_by_one(client, desk):
    for tenant in "abc":
        decode.enqueue(30, tenant)
    running = desk.claim()
    large = decode.enqueue(90, "large")
    small = decode.enqueue(10, "small")
    assert desk.claim() == []
    assert desk.finish(running[0], most=10) == []
    assert desk.finish(running[1], most=10) == []
    assert ids(desk.finish(running[2], most=10)) == [large, small]


def test_a_group_whose_jobs_are_canceled_gives_its_turn_away(client, desk):
    decode.enqueue(50, "a")
    (running,) = desk.claim()
    large, small = decode.enqueue(90, "large"), decode.enqueue(10, "small")
    assert desk.claim() == []
    assert control.cancel(client, large) == "canceled"
    third = decode.enqueue(10, "third")
    assert desk.claim() == []  # it finds that the small one was overlooked, whose turn it is
    assert [*ids(desk.claim()), *ids(desk.claim())] == [small, third]
    desk.finish(running)
    fourth = decode.enqueue(80, "fourth")
    assert ids(desk.claim()) == [fourth]


def test_a_group_that_does_not_come_is_passed_over_after_a_moment(client, desk):
    decode.enqueue(50, "a")
    (running,) = desk.claim()
    large = decode.options(queue="high").enqueue(90, "large")
    claims = desk.workers["w2"]
    claims.order = type(claims.order)(["high"])
    assert desk.claim(worker="w2") == []
    queues.pause(client, "high")
    small = decode.enqueue(10, "small")
    assert desk.claim() == []  # it is the large one's turn first
    assert desk.finish(running, most=10) == []
    assert 0 < client.pttl(f"pm:turn:{KEY}") <= 5000
    client.delete(f"pm:turn:{KEY}")
    GroupRepair(client).repair()
    assert ids(desk.claim()) == [small]
    assert reader.read(client, large).status == "queued"
    queues.resume(client, "high")


def test_several_limits_are_taken_together_or_not_at_all(client, desk):
    key = f"{weighted_jobs.__name__}.decode_rarely"
    first, second = decode_rarely.enqueue(60, "x"), decode_rarely.enqueue(60, "x")
    other = decode_rarely.enqueue(40, "y")
    jobs = desk.claim()
    assert ids(jobs) == [first, other]
    assert client.hgetall(keys.weights_key(key)) == {
        first.encode(): b"59", other.encode(): b"39", b"": b"98",
    }  # fmt: skip
    assert desk.finish(*jobs, most=5) == []  # the second one's rate is used up
    assert client.exists(keys.weights_key(key)) == 0
    third = decode_rarely.enqueue(100, "z")  # no place is kept for what waits for its time
    assert ids(desk.claim()) == [third]
    assert reader.read(client, second).status == "queued"


def test_a_singleton_that_waits_for_slots_can_be_replaced(client, desk):
    decode_alone.enqueue("x", 90)
    (running,) = desk.claim()
    replaced = decode_alone.enqueue("y", 50)
    assert desk.claim() == []
    newer = decode_alone.enqueue("y", 60)
    assert reader.read(client, replaced).status == "canceled"
    assert ids(desk.finish(running, most=5)) == [newer]


@pytest.mark.parametrize("verdict", ["died", "vanished", "overran", "returned", "stopped"])
def test_a_job_that_loses_its_worker_gives_all_its_slots_back(client, desk, verdict):
    id = decode.enqueue(90)
    (running,) = desk.claim()
    rescue(client, "w1", verdict, "why", [running.execution])
    assert client.exists(HOLDERS, WEIGHTS) == 0
    other = decode.enqueue(90, "b")
    found = ids(desk.claim(worker="w2"))
    assert found == ([other] if verdict == "stopped" else [id])


def test_a_failed_attempt_gives_its_slots_back_and_takes_them_again(client, desk):
    id = decode.enqueue(90)
    for _ in range(2):
        (running,) = desk.claim()
        assert (running.id, weights(client)) == (id, {id: 89, "": 89})
        claims = desk.workers["w1"]
        claims.finish_and_claim(claims.next_id(), [outcome.failed(running, "x", 1.0, 2.0)], 0)
        assert client.exists(WEIGHTS) == 0


def test_a_group_stays_in_line_while_another_of_its_jobs_that_went_back_runs(client, desk):
    claims = desk.workers["w1"]
    decode.enqueue(60, "a")
    small = decode.enqueue(1, "b")
    first, running = claims.finish_and_claim(claims.next_id(), [], 2).jobs
    large = decode.enqueue(99, "b")
    claims.finish_and_claim(claims.next_id(), [outcome.failed(running, "x", 1.0, 2.0)], 0)
    (again,) = claims.finish_and_claim(claims.next_id(), [], 2).jobs
    assert (again.id, large.status) == (small, "queued")
    assert client.zcard(BLOCKED) == 1
    ended = [outcome.failed(job, "x", 1.0, 2.0, retry=False) for job in (first, again)]
    claims.finish_and_claim(claims.next_id(), ended, 0)
    assert ids(claims.finish_and_claim(claims.next_id(), [], 2).jobs) == [large]


def test_a_claim_that_is_sent_again_takes_its_slots_once(client, desk):
    id = decode.enqueue(60)
    claims = desk.workers["w1"]
    first = claims.finish_and_claim("c1", [], 1).jobs
    assert claims.finish_and_claim("c1", [], 1).jobs == first
    assert weights(client) == {id: 59, "": 59}


def test_slots_of_a_holder_without_a_claim_are_free(client, desk):
    lost = decode.enqueue(90)
    desk.claim()
    client.delete(keys.claims_key("w1"), keys.job_key(lost))
    id = decode.enqueue(90, "b")
    assert ids(desk.claim(worker="w2")) == [id]
    assert weights(client) == {id: 89, "": 89}


def test_a_lost_holder_gives_its_slots_back_while_others_keep_theirs(client, desk):
    client.hset(HOLDERS, mapping={"one": "gone 1", "two": "gone 2"})
    client.hset(WEIGHTS, mapping={"one": 49, "two": 49, "": 98})
    id = decode.enqueue(50)
    assert ids(desk.claim()) == [id]
    found = weights(client)
    assert (len(found), found[id], found[""]) == (3, 49, 98)


def test_what_is_left_of_lost_holders_is_repaired(client, desk):
    client.hset(HOLDERS, mapping={f"job{n}": "gone 1" for n in range(3)})
    client.hset(WEIGHTS, mapping={**{f"job{n}": 29 for n in range(3)}, "": 87})
    id = decode.enqueue(60)
    assert desk.claim() == []
    until(lambda: OrphanRepair(client).repair() >= 0 and client.exists(HOLDERS) == 0)
    assert ids(desk.claim()) == [id]
    client.delete(HOLDERS)
    client.hset(WEIGHTS, mapping={"nobody": 99, "": 99})
    until(lambda: OrphanRepair(client).repair() >= 0 and not client.hexists(WEIGHTS, "nobody"))
    assert client.exists(WEIGHTS) == 0


@pytest.mark.parametrize("sum", [1200, "garbage"])
def test_many_holders_are_not_counted_at_once_and_lose_nothing(client, desk, sum):
    names = [f"job{number}" for number in range(1200)]
    client.hset(keys.claims_key("w9"), mapping=dict.fromkeys(names, "e"))
    client.hset(HOLDERS, mapping=dict.fromkeys(names, "w9 e"))
    client.hset(WEIGHTS, mapping={**dict.fromkeys(names, 1), "": sum})
    OrphanRepair(client).repair()
    id = decode.enqueue(2)
    client.hset(keys.job_key(id), "limits", f'[["slots","{KEY}",2402,3]]')
    assert desk.claim() == []
    assert client.hlen(WEIGHTS) == 1201


@pytest.mark.parametrize("sum", ["garbage", "nan", "-5", "9" * 400, "1e9"])
def test_a_sum_that_is_garbage_is_counted_again(client, desk, sum):
    decode.enqueue(50)
    (running,) = desk.claim()
    client.hset(WEIGHTS, "", sum)
    id = decode.enqueue(50, "b")
    assert ids(desk.claim()) == [id]
    assert weights(client)[""] == 98
    desk.finish(running)


@pytest.mark.parametrize("key", [WEIGHTS, HOLDERS, BLOCKED, f"pm:turn:{KEY}", "pm:groups:default", BUCKET])
def test_keys_of_another_type_stop_nobody(client, desk, key):
    client.rpush(key, "a list")
    id = decode.enqueue(90)
    other = complete.enqueue("m", 5)
    jobs = desk.claim()
    assert sorted(ids(jobs)) == sorted([id, other])
    decode.enqueue(90, "b")
    assert desk.claim() == []
    assert len(desk.finish(*jobs, most=5)) == 1


def test_a_record_with_costs_that_make_no_sense_harms_no_other(client, desk):
    for text in ("1.5", "-1", "1e300", '"x"', "null", "0", "true", "[]"):
        id = decode.enqueue(5)
        client.hset(keys.job_key(id), "limits", f'[["slots","{KEY}",100,{text}],["rate","{KEY}",1,5,{text}]]')
    sound = decode.enqueue(90, "b")
    claims = desk.workers["w1"]
    found = claims.finish_and_claim(claims.next_id(), [], 20)
    assert len(found.unreadable) == 8
    assert ids(found.jobs) == [sound]
    claims.finish_and_claim(claims.next_id(), found.unreadable, 0)
    assert weights(client) == {sound: 89, "": 89}


def test_jobs_of_before_the_limit_had_costs_count_as_one(client, desk):
    old = decode.enqueue(99)
    client.hset(keys.job_key(old), "limits", f'[["slots","{KEY}",100]]')
    new, too_large = decode.enqueue(99, "b"), decode.enqueue(2, "c")
    assert ids(desk.claim()) == [old, new]
    assert client.hlen(HOLDERS) == 2
    assert reader.read(client, too_large).status == "queued"


def test_a_slot_is_released_by_hand_with_all_that_it_costs(client, desk):
    id, stays = decode.enqueue(50), decode.enqueue(40)
    desk.claim()
    other = decode.enqueue(60, "b")
    assert desk.claim(worker="w2") == []
    assert slots.release_slot(client, KEY, id, force=True) == "w1"
    assert ids(desk.claim(worker="w2")) == [other]
    assert weights(client) == {stays: 39, other: 59, "": 98}


def test_limits_show_what_jobs_take(client, desk):
    id, waits = decode.enqueue(90), decode.enqueue(20)
    desk.claim()
    found = waiting(client, ["default"], 5)
    assert [(each.job, each.slots) for each in found.holders] == [(id, 90)]
    (group,) = found.groups
    assert (group.job, group.lacks) == (waits, KEY)
    assert [(each.kind, each.most, each.cost) for each in group.limits][-1] == ("slots", MOST, 20)


def test_a_rate_counts_what_jobs_cost(client, desk):
    first, second, third = (complete.enqueue("m", tokens) for tokens in (60, 50, 1))
    other = complete.enqueue("n", 100)
    assert ids(desk.claim()) == [first, other]
    assert taken(client) == 60
    ((_, due),) = client.zrange("pm:due", 0, -1, withscores=True)
    assert due == pytest.approx(time.time() + 10 * INTERVAL, abs=5)
    assert {reader.read(client, id).status for id in (second, third)} == {"queued"}


def test_a_job_that_was_returned_gives_back_all_that_it_cost(client, desk):
    complete.enqueue("m", 60)
    (running,) = desk.claim()
    claims = desk.workers["w1"]
    claims.finish_and_claim(claims.next_id(), [outcome.returned(running)], 0)
    assert taken(client) == 0
    desk.claim()
    rescue(client, "w1", "returned")
    assert taken(client) == 0


def test_what_was_spent_corrects_the_rate_once_a_call(client, desk):
    complete.enqueue("m", 50)
    (running,) = desk.claim()
    store = ProgressStore(client, "w1")
    for spent, left in ((20, 20), (20, 20), (80, 80), (0, 0), (30, 30)):
        store.spend(running.id, running.execution, spent)
        assert taken(client) == left
    store.spend(running.id, "stale", 90)
    assert taken(client) == 30
    desk.finish(running)
    store.spend(running.id, running.execution, 90)
    assert taken(client) == 30


def test_a_debt_is_at_most_a_whole_burst(client, desk):
    complete.enqueue("m", 50)
    (running,) = desk.claim()
    ProgressStore(client, "w1").spend(running.id, running.execution, 10**15)
    assert taken(client) == 100
    desk.finish(running)
    complete.enqueue("m", 1)
    assert desk.claim() == []


def test_a_job_that_said_what_it_spent_gets_nothing_back_when_it_is_returned(client, desk):
    complete.enqueue("m", 50)
    claims = desk.workers["w1"]
    (running,) = desk.claim()
    ProgressStore(client, "w1").spend(running.id, running.execution, 20)
    claims.finish_and_claim(claims.next_id(), [outcome.returned(running)], 0)
    assert taken(client) == 20
    (again,) = desk.claim()  # it pays once more
    assert taken(client) == 70
    claims.finish_and_claim(claims.next_id(), [outcome.returned(again)], 0)
    assert taken(client) == 20


def test_jobs_of_all_kinds_say_what_they_spent(server, client):
    jobs = (complete, complete_isolated, complete_async)
    for each in jobs:
        each.enqueue("m", 50, 30)
    assert drained(server) == 0
    for each in jobs:
        name = each.job.name
        assert taken(client, f"pm:rate:jobs:{name}:m") == 30, name


def test_spending_outside_of_a_job_does_nothing():
    current.spent(5)


@pytest.mark.parametrize("amount", [-1, math.nan, math.inf, "5", None, True, 10**16, Decimal(3)])
def test_what_is_no_amount_is_refused(amount: Any):
    with pytest.raises(current.UnfitSpending, match="give a number from 0 to"):
        current.spent(amount)


@pytest.mark.parametrize("size", [0, -1, math.nan, math.inf, -math.inf])
def test_what_is_no_cost_is_refused_at_the_enqueue(client, size: Any):
    with pytest.raises(InvalidCall) as refused:
        decode.enqueue_many([(1,), (size,)])
    assert "\n" not in str(refused.value)
    assert client.keys("rq:*") == []


@pytest.mark.parametrize(
    ("call", "kind"),
    [(lambda: decode.enqueue(101), "concurrency"), (lambda: complete.enqueue("m", 100.5), "rate")],
)
def test_a_cost_above_the_whole_limit_is_refused_at_the_enqueue(client, call, kind):
    with pytest.raises(InvalidCall, match=f"{kind} allows at most 100: the job could never run"):
        call()
    assert client.keys("rq:*") == []


@pytest.mark.parametrize("argument", ["text", True, None, [1], 11])
def test_a_job_of_rqs_whose_cost_makes_no_sense_fails_with_a_line(server, client, argument):
    queue = Queue("default", connection=client, serializer=JSONSerializer)
    found = queue.enqueue(anything.job.name, argument)
    assert drained(server) == 0
    info = ended(client, found.id)
    assert info.status == "failed"
    assert info.reason
    assert info.reason.startswith("UnfitCost: the argument size ")
    with pytest.raises(InvalidCall, match="the argument size"):
        anything.enqueue(argument)


def test_a_job_of_rqs_is_limited_by_its_cost(client, desk, server):
    decode.enqueue(90)
    (running,) = desk.claim()
    queue = Queue("default", connection=client, serializer=JSONSerializer)
    found = queue.enqueue(f"{weighted_jobs.__name__}.decode", 50)
    with pool(server):
        until(lambda: client.zcard(BLOCKED) == 1)
        desk.finish(running)
        assert ended(client, found.id).status == "finished"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"concurrency": "5 cost {nothing}"}, "the function has no argument nothing; it has a, b"),
        ({"concurrency": "5 cost a"}, "end with cost and one argument in braces"),
        ({"concurrency": "5 cost {a} by {b}"}, "end with cost and one argument in braces"),
        ({"concurrency": "5 by {b} cost {a} cost {b}"}, "end with cost and one argument in braces"),
        ({"concurrency": "0 cost {a}"}, "give a number from 1 to"),
        ({"concurrency": f"{10**12 + 1} cost {{a}}"}, "give a number from 1 to"),
        ({"concurrency": "cost {a}"}, "give a number from 1 to"),
        ({"rate": "5/m cost {nothing}"}, "the function has no argument nothing"),
        ({"rate": "5/m by {b} cost"}, "end with cost and one argument in braces"),
        ({"rate": "cost {a}"}, "is not a rate"),
    ],
)
def test_a_cost_that_can_not_be_meant_is_refused_when_the_job_is_declared(options, says):
    def weighed(a: int, b: int) -> None: ...

    given = {"concurrency": None, "rate": None, **options}
    with pytest.raises(InvalidLimit) as refused:
        job_limits("weighed", inspect.signature(weighed), None, "wait", fair=None, **given)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_cost_may_have_a_default(client):
    limits = client.hget(keys.job_key(anything.enqueue()), "limits")
    assert limits.endswith(b",10,3]]")


def test_costs_are_kept_while_workers_are_killed(server, client, tmp_path):
    """More than the limit never runs at once, and all jobs end."""
    path = tmp_path / "notes"
    sizes = [(7 * number) % 90 + 10 for number in range(40)]
    jobs = [decode_noting.enqueue(str(path), "h", size, str(n), 0.02) for n, size in enumerate(sizes)]
    killed: dict[int, float] = {}
    with pool(server, 4) as process:
        for count in (4, 12, 20):
            until(lambda count=count: len(lines(path)) >= count)
            child = children_of(process.pid)[0]
            killed[child] = time.monotonic()
            os.kill(child, signal.SIGKILL)
        for id in jobs:
            assert ended(client, id).status == "finished"
    assert max(loads(lines(path), killed)) <= MOST
    key = f"{decode_noting.job.name}:h"
    assert client.exists(keys.holders_key(key), keys.weights_key(key), keys.blocked_key(key)) == 0


def loads(notes: list[str], killed: dict[int, float]) -> Iterator[int]:
    """What ran together costs, whenever a job begins; a killed process's jobs ended when it was killed."""
    running: dict[tuple[str, int], int] = {}
    for note in sorted(notes, key=lambda note: float(note.split()[4])):
        what, name, size, pid, at = note.split()
        for run in [run for run in running if killed.get(run[1], math.inf) < float(at)]:
            del running[run]
        if what == "+":
            running[name, int(pid)] = int(size)
            yield sum(running.values())
        else:
            running.pop((name, int(pid)), None)
