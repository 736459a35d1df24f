"""Counters of batches that are garbage: they are counted again in small steps, while jobs go on ending."""

from __future__ import annotations

import pytest
from redis import Redis

from packmule.jobs import control, keys
from packmule.jobs.batch import Batch
from packmule.jobs.batch_state import Counts
from packmule.observe import events
from packmule.scheduler.maintenance.batch_settler import JOBS_A_CALL, _settle
from packmule.tests.looks import looks
from packmule.tests.worker import batch_jobs
from packmule.tests.worker.batches import settle
from packmule.worker import Worker
from packmule.worker.order import Strict
from packmule.worker.process.claim import Claims
from packmule.worker.process.performer import finished

pytestmark = pytest.mark.usefixtures("produce")


def settle_twice(client: Redis) -> None:
    """Let the duty go through all batches twice, as it does all the time."""
    for _ in range(2):
        settle(client, rounds=10_000)


def jobs_key(batch: Batch) -> str:
    return f"{keys.batch_key(batch.id)}:jobs"


def large(client: Redis, count: int) -> Batch:
    """A sealed batch of so many jobs: of ten, six are done, two failed and two canceled."""
    batch = Batch.create()
    states = {f"job{number}": "ddddddffcc"[number % 10] for number in range(count)}
    for first in range(0, count, 10_000):
        client.hset(jobs_key(batch), mapping=dict(list(states.items())[first : first + 10_000]))
    client.hset(keys.batch_key(batch.id), "total", count)
    return batch


def test_a_large_batch_whose_counters_were_garbled_is_counted_again_in_small_steps(client):
    batch = large(client, 100_000)
    client.hset(keys.batch_key(batch.id), mapping={"done": "many", "failed": "nan", "canceled": -3})
    commands = [looks(client, batch.seal)[0]]
    key, cursor = keys.batch_key(batch.id), b"0"

    def step() -> None:
        nonlocal cursor
        cursor = _settle(client, [key, jobs_key(batch)], [batch.id, cursor, JOBS_A_CALL, "", ""])

    while not commands[1:] or cursor != b"0":
        commands.append(looks(client, step)[0])
        whole = {f"cmdstat_{name}" for name in ("hvals", "hkeys", "hgetall", "del")}
        assert not whole & client.info("commandstats").keys()
    assert batch.state().counts == Counts(100_000, 60_000, 20_000, 20_000)
    assert batch.state().ended
    assert client.keys("pm:batch:*:recount") == []
    assert max(commands) < 700
    assert len(commands) > 100


@pytest.mark.parametrize("field", ["total", "done", "failed", "canceled"])
@pytest.mark.parametrize("garbage", ["1.5", "-1", "1e3", "9" * 40, "007", "x", ""])
def test_no_garbage_in_a_counter_stays_or_ends_a_batch(client, field, garbage):
    batch = large(client, 990)
    batch_jobs.double.options(batch=batch.id).enqueue_many([(n,) for n in range(10)])
    batch.seal()
    client.hset(keys.batch_key(batch.id), mapping={"done": 594, "failed": 198, "canceled": 198})
    client.hset(keys.batch_key(batch.id), field, garbage)
    settle_twice(client)
    assert batch.state().counts == Counts(1000, 594, 198, 198)
    assert not batch.state().ended
    Worker(["default"], connection=client).work(burst=True)
    assert batch.state().counts == Counts(1000, 604, 198, 198)
    assert batch.state().ended


def exact(client: Redis, batch: Batch) -> None:
    """The counters are those of the jobs."""
    states = client.hvals(jobs_key(batch))
    done, failed, canceled = (states.count(state) for state in (b"d", b"f", b"c"))
    assert batch.state().counts == Counts(len(states), done, failed, canceled)


def test_jobs_that_end_are_added_or_run_again_while_a_batch_is_counted_again_count_once(client):
    batch = large(client, 2_000)
    ids = batch_jobs.double.options(batch=batch.id).enqueue_many([(n,) for n in range(600)])
    key, waiting = keys.batch_key(batch.id), iter(ids)
    client.hset(key, "failed", "x")
    batch.seal()
    cursor, was_counted = b"0", set()
    for number in range(100):
        for id in (next(waiting), next(waiting)):
            was_counted.add(client.hexists(f"{key}:recount", id))
            control.cancel(client, id)
        control.retry(client, id)
        batch_jobs.double.options(batch=batch.id).enqueue(0)
        if number % 5 == 0:
            Worker(["default"], connection=client).work(burst=True, max_jobs=1)
        assert client.hget(key, "recounting") == b"1"
        cursor = _settle(client, [key, jobs_key(batch)], [batch.id, cursor, 100, "", ""])
        if cursor == b"0":
            break
    assert cursor == b"0"
    assert was_counted == {True, False}
    settle_twice(client)
    assert client.hget(key, "recounting") is None
    exact(client, batch)
    Worker(["default"], connection=client).work(burst=True)
    exact(client, batch)
    assert batch.state().ended


def test_a_sum_that_is_garbage_leaves_no_other_sum_behind(client):
    batch = large(client, 2_000)
    key = keys.batch_key(batch.id)
    client.hset(jobs_key(batch), mapping={f"pending{number}": "p" for number in range(500)})
    client.hset(key, "failed", "x")
    batch.seal()
    assert 0 < client.ttl(f"{key}:recount") <= 86_400
    client.hset(f"{key}:recount", ".f", "x")
    cursor, _ = client.hscan(jobs_key(batch), 0, count=500)
    _settle(client, [key, jobs_key(batch)], [batch.id, cursor, 500, "", ""])
    for number in range(500):
        client.hset(keys.job_key(f"pending{number}"), "status", "queued")
    settle_twice(client)
    exact(client, batch)


def test_a_job_ends_although_the_count_that_is_under_way_is_of_another_type(client):
    batch = large(client, 2_000)
    batch_jobs.double.options(batch=batch.id).enqueue(1)
    client.hset(keys.batch_key(batch.id), "failed", "x")
    batch.seal()
    client.delete(f"{keys.batch_key(batch.id)}:recount")
    client.set(f"{keys.batch_key(batch.id)}:recount", "in the way")
    Worker(["default"], connection=client).work(burst=True)
    assert "finished" in {event.type for event in events.read(client)}
    settle_twice(client)
    exact(client, batch)
    assert batch.state().ended


@pytest.mark.parametrize("lost", ["all", "a sum", "another type"])
def test_a_count_that_was_lost_halfway_begins_anew(client, lost):
    batch = large(client, 2_000)
    key = keys.batch_key(batch.id)
    client.hset(key, "failed", "x")
    batch.seal()
    _settle(client, [key, jobs_key(batch)], [batch.id, "0", 100, "", ""])
    assert client.hlen(f"{key}:recount") > 100
    if lost == "a sum":
        client.hset(f"{key}:recount", ".f", "x")
    else:
        client.delete(f"{key}:recount")
    if lost == "another type":
        client.set(f"{key}:recount", "x")
    with Batch.create() as innocent:
        batch_jobs.double.options(batch=innocent.id).enqueue(1)
    Worker(["default"], connection=client).work(burst=True)
    settle_twice(client)
    exact(client, batch)
    assert batch.state().ended
    assert innocent.state().ended


def test_what_is_no_job_of_a_batch_changes_no_count_that_is_under_way(client):
    batch = large(client, 2_000)
    batch_jobs.double.options(batch=batch.id, delay=60).enqueue(3)
    first, other = batch_jobs.double.enqueue_many([(1,), (2,)])
    client.hset(jobs_key(batch), first, "p")
    for id in (first, other):  # the second says so itself, but the batch does not know it
        client.hset(keys.job_key(id), "batch", batch.id)
    key = keys.batch_key(batch.id)
    client.hset(key, "failed", "x")
    strangers = (other, *(f"none{number}" for number in range(2_000)))
    client.hset(f"{key}:recount", mapping=dict.fromkeys(strangers, ""))
    batch.seal()
    _settle(client, [key, jobs_key(batch)], [batch.id, "0", 100, "", ""])
    assert client.hexists(key, "recounting")
    claims = Claims(client, "w1", Strict(["default"]))
    jobs = claims.finish_and_claim("c1", [], 2).jobs
    client.hset(f"{key}:recount", first, "")
    claims.finish_and_claim("c2", [finished(job, b"2", 1.0, 2.0) for job in jobs], 0)
    settle_twice(client)
    exact(client, batch)
    assert not batch.state().ended


def test_a_job_that_is_added_and_ends_behind_a_count_that_is_under_way_is_counted(client):
    batch = large(client, 2_000)
    key = keys.batch_key(batch.id)
    client.hset(key, "failed", "x")
    batch.seal()
    cursor = 0
    while following := client.hscan(jobs_key(batch), cursor, count=100)[0]:
        _settle(client, [key, jobs_key(batch)], [batch.id, cursor, 100, "", ""])
        cursor = following
    id = batch_jobs.double.options(batch=batch.id).enqueue(1)
    while id.encode() in client.hscan(jobs_key(batch), cursor, count=100)[1]:
        id = batch_jobs.double.options(batch=batch.id).enqueue(1)
    control.cancel(client, id)
    _settle(client, [key, jobs_key(batch)], [batch.id, cursor, 100, "", ""])
    settle_twice(client)
    exact(client, batch)
