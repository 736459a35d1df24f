"""The pool, with real processes that are killed."""

from __future__ import annotations

import os
import signal
import socket
import time

import pytest
from redis import Redis
from rq.job import Job
from rq.queue import Queue
from rq.serializers import JSONSerializer

from packmule.coordination.clock import clock
from packmule.jobs import keys, reader
from packmule.jobs.client import Client
from packmule.tests.worker import executor_jobs, pool_jobs
from packmule.tests.worker.pools import (
    DEADLINE,
    children_of,
    drained,
    ended,
    is_alive,
    lines,
    logging_pool,
    pool,
    until,
)
from packmule.worker.process.claim import LEASE_INTERVAL
from packmule.worker.process.completer import STALE_SECONDS
from packmule.worker.rescue import rescue_expired


@pytest.fixture(autouse=True)
def produce(client: Redis) -> None:
    Client(client).make_default()


def test_workers_with_a_thousand_open_files_wait_for_jobs_and_drain(server, client):
    with pool(server, files=1100, threads=2) as process:
        until(lambda: client.scard(keys.WORKERS) == 1)
        for _ in range(2):  # the second comes to a worker that waits
            jobs = [executor_jobs.where.enqueue(), executor_jobs.where_isolated.enqueue()]
            assert [each.result(DEADLINE) for each in jobs]
        process.terminate()
        assert process.wait(DEADLINE) == 0


def test_burst_performs_everything_and_leaves_nothing_behind(server, client):
    ids = pool_jobs.add.enqueue_many([(number,) for number in range(300)])
    assert drained(server, 2) == 0
    jobs = Job.fetch_many(ids, client, JSONSerializer)
    assert [job.return_value() for job in jobs] == [number + 1 for number in range(300)]
    assert client.keys("pm:claims:*") == []
    assert client.zcard("rq:wip:default") == 0
    assert client.smembers(keys.WORKERS) == set()
    assert client.zcard(keys.LEASES) == 0
    assert client.zcard("rq:finished:default") == 300


def test_queues_are_served_in_their_order(server, client, tmp_path):
    path = tmp_path / "notes"
    for queue in ("low", "default", "high"):
        pool_jobs.note.options(queue=queue).enqueue(str(path), queue)
    assert drained(server) == 0
    assert lines(path) == ["high", "default", "low"]


def test_a_failing_job_uses_up_its_retries_and_keeps_its_reason(server, client, tmp_path):
    id = pool_jobs.fail.enqueue(str(tmp_path / "notes"))
    assert drained(server) == 0
    assert len(lines(tmp_path / "notes")) == 3
    record = reader.read(client, id)
    assert (record.status, record.reason, record.retries_left) == ("failed", "ValueError: it is broken", 0)
    assert "pool_jobs.py" in record.error
    assert "perform.py" not in record.error
    assert client.zscore("rq:failed:default", id) is not None


def test_an_exception_to_give_up_on_is_not_retried(server, client, tmp_path):
    id = pool_jobs.give_up.enqueue(str(tmp_path / "notes"))
    assert drained(server) == 0
    assert len(lines(tmp_path / "notes")) == 1
    assert reader.read(client, id).status == "failed"


def test_a_retry_with_back_off_is_scheduled(server, client, tmp_path):
    id = pool_jobs.give_up.options(retries=1).enqueue(str(tmp_path))  # a folder: IsADirectoryError, retried
    assert drained(server) == 0
    record = reader.read(client, id)
    assert (record.status, record.attempts, record.retries_left) == ("scheduled", 1, 0)
    assert client.zscore("rq:scheduled:default", id) <= time.time() + 1
    assert record.reason.startswith("IsADirectoryError")


def test_a_killed_child_is_replaced_and_its_job_runs_again(server, client, tmp_path):
    with pool(server):
        id = pool_jobs.die_once.enqueue(str(tmp_path / "notes"))
        after = pool_jobs.add.enqueue(1)
        assert ended(client, id).result == "lived"
        assert ended(client, after).result == 2
    assert reader.read(client, id).deaths == 1


@pytest.mark.parametrize(
    ("how", "cause"),
    [("kill", "died of SIGKILL"), ("exit", "exited with code 0"), ("segfault", "died of SIGSEGV")],
)
def test_a_job_that_keeps_killing_its_process_fails_after_three_deaths(server, client, tmp_path, how, cause):
    with pool(server):
        id = pool_jobs.die.enqueue(str(tmp_path / "notes"), how)
        bystander = pool_jobs.add.enqueue(1)
        record = ended(client, id)
        assert ended(client, bystander).result == 2
    assert len(lines(tmp_path / "notes")) == 3
    assert record.status == "failed"
    assert cause in record.reason
    assert Job.fetch(id, client, JSONSerializer).latest_result().exc_string == record.error
    assert record.crash["cause"] == record.error
    assert (record.crash["signal"], record.crash["exit_code"]) == {
        "kill": ("SIGKILL", None),
        "exit": (None, 0),
        "segfault": ("SIGSEGV", None),
    }[how]
    assert 2**20 < record.crash["peak_memory"] < 2**31
    assert record.crash["worker"]
    assert record.crash["host"] == socket.gethostname()


def test_jobs_claimed_with_one_that_kills_its_process_count_no_death(server, client, tmp_path):
    id = pool_jobs.die_once.enqueue(str(tmp_path / "notes"))
    rest = pool_jobs.add.enqueue_many([(number,) for number in range(100)])
    with pool(server, together=50):
        assert [ended(client, each).result for each in rest] == list(range(1, 101))
    assert reader.read(client, id).deaths == 1
    assert [reader.read(client, each).deaths for each in rest] == [0] * 100


def test_a_timeout_raises_in_the_job(server, client):
    id = pool_jobs.sleep.enqueue(20.0)
    assert drained(server, patience=60) == 0
    assert "ran longer than its timeout of 1 s" in reader.read(client, id).reason


def test_a_job_that_ignores_its_timeout_is_killed(server, client):
    with pool(server):
        id = pool_jobs.stubborn.enqueue()
        bystander = pool_jobs.add.enqueue(1)
        record = ended(client, id)
        assert ended(client, bystander).result == 2
    assert record.status == "failed"
    assert "ran on past its timeout of 1 s and was killed" in record.reason
    assert record.deaths == 0


def test_a_long_job_delays_neither_the_jobs_claimed_with_it_nor_earlier_outcomes(server, client, tmp_path):
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    before = pool_jobs.noop.enqueue_many([()] * 300)  # so that batches grow
    long = pool_jobs.note_when_told.enqueue(str(notes), str(gate), "a")
    after = pool_jobs.add.enqueue_many([(number,) for number in range(100)])
    with pool(server):
        until(lambda: lines(notes) == ["begin a"])
        until(lambda: {reader.read(client, id).status for id in before} == {"finished"})
        until(lambda: client.lrange("rq:queue:default", 0, -1) == [id.encode() for id in after])
        until(lambda: reader.read(client, long).status == "started")
        gate.touch()
        assert [ended(client, id).result for id in after] == list(range(1, 101))
        assert ended(client, long).result == "a"


def test_sigterm_finishes_the_running_job_and_gives_the_rest_back_in_order(server, client, tmp_path):
    notes = tmp_path / "notes"
    running = pool_jobs.note_until_stopped.enqueue(str(notes), "a")
    rest = pool_jobs.add.enqueue_many([(number,) for number in range(100)])
    with pool(server, long=600, together=50) as process:
        until(lambda: lines(notes) == ["begin a"])
        (claims,) = client.keys("pm:claims:*")
        assert {running, *rest[:49]} <= {id.decode() for id in client.hkeys(claims)}
        process.terminate()
        assert process.wait(DEADLINE) == 0
    assert reader.read(client, running).result == "a"
    assert Queue("default", client, serializer=JSONSerializer).job_ids == rest
    assert {reader.read(client, id).status for id in rest} == {"queued"}
    assert client.zcard("rq:wip:default") == 0


@pytest.mark.parametrize("signals", [1, 2])
def test_jobs_that_outlast_the_grace_or_a_second_signal_go_back(server, client, tmp_path, signals):
    notes = tmp_path / "notes"
    id = pool_jobs.note_when_told.enqueue(str(notes), str(tmp_path / "never"), "a")
    with logging_pool(server, grace=0.5 if signals == 1 else 600) as (process, logged):
        until(lambda: lines(notes) == ["begin a"])
        for _ in range(signals):
            process.terminate()
            until(lambda: "the pool stops" in logged())  # two pending signals would be one
        assert process.wait(DEADLINE) == 1
    record = reader.read(client, id)
    assert (record.status, record.attempts, record.deaths) == ("queued", 0, 0)
    assert client.lrange("rq:queue:default", 0, -1) == [id.encode()]
    assert client.keys("rq:worker:*") == [], "a worker that is gone would be shown as busy"


def test_children_die_with_their_pool_whatever_they_do(server, client, tmp_path):
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    pool_jobs.note_when_told.enqueue(str(notes), str(gate), "a")
    with pool(server, 2) as process:
        until(lambda: client.scard(keys.WORKERS) == 2 and lines(notes) == ["begin a"])
        children = children_of(process.pid)
        process.kill()
        until(lambda: not any(is_alive(pid) for pid in children))
    assert len(children) == 2


def test_the_jobs_of_a_vanished_host_run_elsewhere_once_its_lease_has_ended(server, client, tmp_path):
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    id = pool_jobs.note_when_told.enqueue(str(notes), str(gate), "a")
    with pool(server) as process:
        until(lambda: reader.read(client, id).status == "started")
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert rescue_expired(client) == {}
        (worker,) = client.zrange(keys.LEASES, 0, -1)
        client.zadd(keys.LEASES, {worker: 1})  # as after its end
        assert rescue_expired(client)[worker.decode()].back == [id]
    gate.touch()
    assert drained(server) == 0
    record = reader.read(client, id)
    assert (record.result, record.deaths) == ("a", 0)
    assert client.smembers(keys.WORKERS) == set()


def test_an_outcome_of_a_worker_that_lost_its_lease_is_refused(server, client, tmp_path):
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    id = pool_jobs.note_when_told.enqueue(str(notes), str(gate), "a")
    with pool(server) as process:
        until(lambda: lines(notes) == ["begin a"])
        os.killpg(process.pid, signal.SIGSTOP)
        (worker,) = client.zrange(keys.LEASES, 0, -1)
        client.zadd(keys.LEASES, {worker: 1})
        assert rescue_expired(client)[worker.decode()].back == [id]
        client.rpop("rq:queue:default")  # nobody else performs it in this test
        gate.touch()
        os.killpg(process.pid, signal.SIGCONT)
        until(lambda: lines(notes) == ["begin a", "end a"])
        next_one = pool_jobs.add.enqueue(1)
        assert ended(client, next_one).result == 2
        until(lambda: client.smembers(keys.WORKERS) == {keys.worker_key(worker.decode()).encode()})
    assert reader.read(client, id).status == "queued"
    assert client.xlen(keys.results_key(id)) == 0


def test_a_thawed_worker_begins_no_job_that_it_was_given_while_it_was_frozen(server, client, tmp_path):
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    gate.touch()
    with pool(server, queues="default") as process:
        until(lambda: client.zcard(keys.LEASES) == 1)
        (worker,) = client.zrange(keys.LEASES, 0, -1)
        until(lambda: [each for each in client.client_list() if each["cmd"] == "blmove"])
        os.killpg(process.pid, signal.SIGSTOP)
        id = pool_jobs.note_when_told.enqueue(str(notes), str(gate), "a")
        until(lambda: client.hexists(keys.claims_key(worker.decode()), id))  # the server gave it the job
        claimed_by = clock()
        client.zadd(keys.LEASES, {worker: 1})
        assert rescue_expired(client)[worker.decode()].back == [id]
        until(lambda: clock() > claimed_by + STALE_SECONDS)
        os.killpg(process.pid, signal.SIGCONT)
        assert ended(client, id).result == "a"
    assert lines(notes) == ["begin a", "end a"]


def test_an_idle_worker_that_was_taken_for_dead_registers_again_with_its_next_job(server, client):
    with pool(server) as process:
        until(lambda: client.zcard(keys.LEASES) == 1)
        (worker,) = client.zrange(keys.LEASES, 0, -1)
        time.sleep(LEASE_INTERVAL)
        os.killpg(process.pid, signal.SIGSTOP)  # so that it can't come back while the test looks
        client.zadd(keys.LEASES, {worker: 1})
        assert worker.decode() in rescue_expired(client)
        assert client.smembers(keys.WORKERS) == set()
        os.killpg(process.pid, signal.SIGCONT)
        assert ended(client, pool_jobs.add.enqueue(1)).result == 2
        key = keys.worker_key(worker.decode())
        until(lambda: client.smembers(keys.WORKERS) == {key.encode()})
        assert client.hget(key, "queues") == b"high,default,low"
        assert 0 < client.ttl(key) <= 480


@pytest.mark.parametrize(
    ("job", "reason"),
    [
        ("unwritable", "returned what JSON can't hold"),
        ("large", "returned 2,000,002 bytes, but a result may hold 1,048,576"),
        ("exits", "SystemExit: 3"),
    ],
)
def test_an_unwritable_result_or_an_exit_fails_the_job_with_its_reason(server, client, job, reason):
    id = getattr(pool_jobs, job).enqueue()
    assert drained(server) == 0
    record = reader.read(client, id)
    assert record.status == "failed"
    assert reason in record.reason


def test_a_coroutine_is_awaited_and_a_job_may_enqueue_another(server, client):
    waits, parent = pool_jobs.waits.enqueue(7), pool_jobs.parent.enqueue()
    assert drained(server) == 0
    assert reader.read(client, waits).result == 7
    assert reader.read(client, reader.read(client, parent).result).result == 2


def test_progress_stays_readable_after_the_job(server, client):
    id = pool_jobs.progress.enqueue()
    assert drained(server) == 0
    assert reader.read(client, id).progress == reader.Progress(5, 5, "step 5")
    assert client.hget(keys.progress_key(id), "attempt") == b"1"


def test_suspended_workers_claim_nothing_until_they_are_resumed(server, client):
    client.set(keys.SUSPENDED, 1)
    id = pool_jobs.add.enqueue(1)
    with pool(server):
        until(lambda: client.zcard(keys.LEASES) == 1)
        assert reader.read(client, id).status == "queued"
        client.delete(keys.SUSPENDED)
        assert ended(client, id).result == 2


def test_a_pool_waits_while_redis_is_unavailable(spare_server):
    server = spare_server()
    with Redis.from_url(server.url) as client:
        produce = Client(client).send
        with pool(server):
            until(lambda: client.scard(keys.WORKERS) == 1)
            server.stop()
            time.sleep(0.5)  # long enough for the workers to notice
            server.ensure()
            (id,) = produce(pool_jobs.add.job, [((1,), {})])
            assert ended(client, id).result == 2
