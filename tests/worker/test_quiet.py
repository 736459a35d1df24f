"""Quiet workers, and stopping one of a pool: from afar, and the others go on."""

from __future__ import annotations

import os
import signal

import pytest
from redis import Redis

from packmule.jobs import cluster, keys
from packmule.scheduler.maintenance.prune import Pruner
from packmule.tests.worker import executor_jobs, pool_jobs
from packmule.tests.worker.pools import ended, pool, until
from packmule.worker.order import Strict
from packmule.worker.process.claim import Claims

pytestmark = pytest.mark.usefixtures("produce")


def names(client: Redis) -> set[str]:
    return {each["name"] for each in cluster.workers(client)}


def test_a_quiet_worker_is_given_no_job_and_others_are(client):
    for name in ("w1", "w2"):
        client.sadd(keys.WORKERS, keys.worker_key(name))
    first, second = (
        executor_jobs.where.enqueue(),
        executor_jobs.where.options(queue="high", priority=9).enqueue(),
    )
    quiet, other = (Claims(client, name, Strict(["high", "default"])) for name in ("w1", "w2"))
    assert cluster.quiet(client, "w1")
    assert not cluster.quiet(client, "w1")
    claim = quiet.finish_and_claim("1", [], 5)
    assert (claim.jobs, claim.paused) == ([], {"high", "default"})
    assert [job.id for job in other.finish_and_claim("1", [], 1).jobs] == [second]
    client.lmove(keys.queue_key("default"), keys.waiting_key("w1"), "LEFT", "RIGHT")
    third = executor_jobs.where.enqueue()
    assert quiet.claim_moved(0, "2").is_empty
    assert client.lrange(keys.queue_key("default"), 0, -1) == [first.encode(), third.encode()]
    assert cluster.resume(client, "w1")
    assert not cluster.resume(client, "w1")
    assert [job.id for job in quiet.finish_and_claim("3", [], 5).jobs] == [first, third]


def test_a_quiet_worker_of_a_pool_ends_what_it_has_and_takes_no_more(server, client):
    with pool(server, 2):
        until(lambda: len(names(client)) == 2)
        one, two = sorted(names(client))
        cluster.quiet(client, one)
        ids = executor_jobs.where.enqueue_many([()] * 100)
        assert all(ended(client, id).status == "finished" for id in ids)
        assert {ended(client, id).worker for id in ids} == {two}
        cluster.resume(client, one)
        cluster.quiet(client, two)
        assert ended(client, pool_jobs.add.enqueue(1)).worker == one


def test_a_quiet_worker_that_dies_loses_no_job_and_its_successor_is_not_quiet(server, client):
    with pool(server, 1):
        until(lambda: len(names(client)) == 1)
        id = executor_jobs.where.enqueue(1.0)
        until(lambda: client.hget(keys.job_key(id), "status") == b"started")
        (name,) = names(client)
        cluster.quiet(client, name)
        waits = pool_jobs.add.enqueue(1)
        os.kill(int(client.hget(keys.worker_key(name), "pid")), signal.SIGKILL)
        assert ended(client, id).status == ended(client, waits).status == "finished"
        assert names(client).isdisjoint({name})
    client.sadd(keys.QUEUES, keys.queue_key("default"))
    Pruner(client).prune()
    assert not client.exists(keys.QUIET)


def test_a_worker_that_is_stopped_ends_its_job_and_is_replaced(server, client):
    with pool(server, 1):
        until(lambda: len(names(client)) == 1)
        (name,) = names(client)
        id = executor_jobs.where.enqueue(0.5)
        until(lambda: client.hget(keys.job_key(id), "status") == b"started")
        cluster.stop(client, name)
        assert ended(client, id).worker == name
        until(lambda: names(client) and names(client).isdisjoint({name}))
        assert ended(client, pool_jobs.add.enqueue(1)).worker != name


def test_a_name_that_no_worker_has_is_refused(client):
    for do in (cluster.quiet, cluster.resume, cluster.stop):
        with pytest.raises(cluster.NoSuchWorker, match="nobody"):
            do(client, "nobody")
    assert not client.exists(keys.QUIET)


def test_a_key_of_another_type_keeps_no_worker_from_its_jobs(client):
    client.set(keys.QUIET, "garbage")
    id = executor_jobs.where.enqueue()
    claims = Claims(client, "w1", Strict(["default"]))
    assert [job.id for job in claims.finish_and_claim("1", [], 1).jobs] == [id]
