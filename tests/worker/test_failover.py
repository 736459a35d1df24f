"""A failover under a running pool: workers, producers and schedulers go on at the new primary."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from redis import Redis

import packmule
from packmule.coordination.redis.connection import connect
from packmule.jobs import keys, schedule_ledger, schedule_store
from packmule.jobs.client import Client
from packmule.jobs.schedule import schedule
from packmule.observe.leadership import leader
from packmule.tests.fork_server import Forked
from packmule.tests.jobs import sample_jobs
from packmule.tests.network import Pair, network
from packmule.tests.pace import pace
from packmule.tests.worker import limited_jobs, pool_jobs
from packmule.tests.worker.pools import lines, pool, until

SOON = 10.0
"""Seconds after which work goes on at the new primary."""

NOWHERE = Path("/nonexistent/never-used-with-a-url")


def enqueued(client: Client, *args: str) -> bool:
    """Enqueue a note, as a producer does that tries again with the same id; whether that worked."""
    try:
        client.enqueue(pool_jobs.note.options(job_id=args[1]), *args)
    except packmule.Unavailable:
        return False
    return True


def waiting(server: Redis) -> int:
    """How many blocking moves wait there: each idle worker has one for each of its queues."""
    return sum(each["cmd"] == "blmove" for each in server.client_list())


@pytest.mark.parametrize("fault", ["demote", "silence"])
def test_a_pool_and_a_producer_go_on_at_the_new_primary(pair: Pair, tmp_path, fault):
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    with (
        connect(pair.name.url, NOWHERE) as redis,
        Redis.from_url(pair.first.url) as first,
        pool(SimpleNamespace(url=pair.name.url), 2),
        pace() as second,
    ):
        producer = Client(redis)
        until(lambda: first.scard(keys.WORKERS) == 2)
        until(lambda: waiting(first) == 6)
        producer.enqueue(pool_jobs.note_when_told, str(notes), str(gate), "long")
        until(lambda: lines(notes) == ["begin long"])  # one works, the other waits
        with Redis.from_url(pair.second.url) as new:
            until(lambda: new.llen(keys.queue_key("default")) == 0)
        getattr(pair, fault)()
        began = time.monotonic()
        until(lambda: enqueued(producer, str(notes), "next"))
        until(lambda: "next" in lines(notes))
        assert time.monotonic() - began < SOON * second()
        gate.touch()
        began = time.monotonic()
        until(lambda: producer.read(producer.job("next")).status == "finished")
        until(lambda: "end long" in lines(notes))
        assert lines(notes).count("begin long") == 1
        assert lines(notes).count("next") == 1
        with Redis.from_url(pair.second.url) as new:
            until(lambda: waiting(new) == 6)  # a push wakes either worker again


@pytest.mark.parametrize("fault", ["demote", "silence"])
def test_a_scheduler_goes_on_at_the_new_primary(pair: Pair, tmp_path, fault):
    notes = tmp_path / "notes"
    scheduler = Forked(["packmule.tests.scheduler.run_scheduler", pair.name.url, "3"])
    try:
        with (
            connect(pair.name.url, NOWHERE) as redis,
            pool(SimpleNamespace(url=pair.name.url)),
            pace() as second,
        ):
            producer = Client(redis)
            producer.enqueue(pool_jobs.note.options(delay=0.1), str(notes), "before")
            until(lambda: lines(notes) == ["before"])
            getattr(pair, fault)()
            began = time.monotonic()
            until(lambda: enqueued(Client(redis), str(notes), "at-once"))
            with Redis.from_url(pair.second.url) as new:
                Client(new).enqueue(pool_jobs.note.options(delay=0.1), str(notes), "after")
            until(lambda: "after" in lines(notes))
            assert time.monotonic() - began < 2 * SOON * second()
    finally:
        scheduler.kill()
        scheduler.wait()


def test_everything_works_where_a_round_trip_takes_150_ms(spare_server, tmp_path):
    notes, failures, server = tmp_path / "notes", tmp_path / "failures", spare_server()
    with (
        network(server, 0.075) as far,
        connect(far.url, NOWHERE) as redis,
        Redis.from_url(server.url) as near,
    ):
        schedule_store.put(near, schedule("ticks", {"job": sample_jobs.noop.job.name, "every": 1}))
        scheduler = Forked(["packmule.tests.scheduler.run_tick_scheduler", far.url, far.url])
        try:
            with pool(SimpleNamespace(url=far.url)):
                producer = Client(redis)
                producer.enqueue(pool_jobs.note.options(delay=0.5), str(notes), "delayed")
                until(lambda: "delayed" in lines(notes))
                failing = producer.enqueue(pool_jobs.fail, str(failures))  # which is retried twice
                until(lambda: producer.read(failing).status == "failed")
                assert len(lines(failures)) == 3
                alone = producer.enqueue(limited_jobs.alone, str(notes), "single")
                until(lambda: producer.read(alone).status == "finished")
                assert {"+single", "-single"} <= set(lines(notes))
                until(
                    lambda: sum(row["did"] == "enqueued" for row in schedule_ledger.read(near, "ticks")) > 4
                )
            until(lambda: (found := leader(near)) is not None and found.until > found.since + 8)
        finally:
            scheduler.kill()
            scheduler.wait()
