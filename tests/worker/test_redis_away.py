"""Redis dies, hangs, cuts connections, fills up or takes no writes: workers wait and continue."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from redis import Redis

from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.jobs import keys, reader
from packmule.jobs.client import Client
from packmule.tests.losing_proxy import LosingProxy
from packmule.tests.network import server_frozen
from packmule.tests.pace import pace
from packmule.tests.worker import executor_jobs, limited_jobs, pool_jobs
from packmule.tests.worker.pools import children_of, ended, is_alive, lines, logging_pool, pool, until
from packmule.worker.heartbeat import Heartbeat
from packmule.worker.order import Strict
from packmule.worker.process.claim import Claims
from packmule.worker.scoreboard import MAIN, RunningJob, Scoreboard
from packmule.worker.started import Marks

AWAY_SECONDS = 0.6
LONG_SECONDS = keys.LEASE_SECONDS + 1.5
CUT_SECONDS = keys.LEASE_SECONDS / 2


@contextmanager
def killed(server: EmbeddedServer, client: Redis) -> Iterator[None]:
    pid = server.pid()
    os.kill(pid, signal.SIGKILL)
    yield
    server.ensure()


@contextmanager
def connections_cut(server: EmbeddedServer, client: Redis) -> Iterator[None]:
    for _ in range(5):
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        time.sleep(0.05)
    client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    yield


@contextmanager
def paused(server: EmbeddedServer, client: Redis) -> Iterator[None]:
    client.client_pause(int(AWAY_SECONDS * 1000))
    yield


@contextmanager
def frozen(server: EmbeddedServer, client: Redis) -> Iterator[None]:
    with server_frozen(server):
        yield


@contextmanager
def full(server: EmbeddedServer, client: Redis) -> Iterator[None]:
    client.config_set("maxmemory", 1)
    yield
    client.config_set("maxmemory", 0)


@contextmanager
def demoted(server: EmbeddedServer, client: Redis) -> Iterator[None]:
    client.replicaof("127.0.0.1", 1)
    yield
    client.replicaof("NO", "ONE")


@pytest.mark.parametrize(
    ("fault", "threads"),
    [(killed, 1), (killed, 5), (connections_cut, 1), (paused, 5), (full, 1), (demoted, 5)],
)
def test_workers_survive_an_outage_and_no_job_is_lost_or_doubled(spare_server, tmp_path, fault, threads):
    server = spare_server()
    ledger = tmp_path / "ledger"
    with Redis.from_url(server.url) as client:
        Client(client).make_default()
        with pool(server, 2, threads=threads) as process:
            until(lambda: client.scard(keys.WORKERS) == 2)
            children = children_of(process.pid)
            until(lambda: sum(each["cmd"] == "blmove" for each in client.client_list()) == 6)
            with fault(server, client):  # while they wait for work
                time.sleep(AWAY_SECONDS)
            ids = [ended(client, executor_jobs.enter.enqueue(str(ledger), "first")).id]
            for number in range(25):
                ids += executor_jobs.enter.enqueue_many([(str(ledger), f"a{number}-{n}") for n in range(6)])
                ids += executor_jobs.enter_async.enqueue_many(
                    [(str(ledger), f"b{number}-{n}") for n in range(2)]
                )
            ids += executor_jobs.enter_isolated.enqueue_many([(str(ledger), f"c{n}") for n in range(20)])
            until(lambda: len(lines(ledger)) > 20)
            with fault(server, client):  # while they work
                time.sleep(AWAY_SECONDS)
            assert {ended(client, id).status for id in ids} == {"finished"}
            assert children_of(process.pid) == children
        assert len(set(lines(ledger))) == len(ids)
        assert len(lines(ledger)) == len(ids)
        assert {reader.read(client, id).deaths for id in ids} == {0}
        assert client.llen(keys.QUARANTINE) == 0


def test_a_pool_and_each_of_its_processes_may_start_while_redis_is_away(spare_server, tmp_path):
    server = spare_server()
    server.stop()
    with logging_pool(server) as (process, log), Redis.from_url(server.url) as client:
        until(lambda: f"{process.pid} unix" in log() and "waiting for it" in log())
        server.ensure()
        Client(client).make_default()
        assert ended(client, pool_jobs.add.enqueue(1)).result == 2
        (first,) = children_of(process.pid)
        server.stop()
        os.kill(first, signal.SIGKILL)
        until(lambda: children_of(process.pid) not in ([], [first]))
        (second,) = children_of(process.pid)
        until(lambda: f"{second} unix" in log() and log().count("waiting for it") >= 2)
        server.ensure()
        assert ended(client, pool_jobs.add.enqueue(2)).result == 3
        assert children_of(process.pid) == [second]
        assert process.poll() is None


@pytest.mark.parametrize("fault", [killed, full, demoted])
def test_a_crash_of_an_isolated_job_during_an_outage_is_counted_afterwards(spare_server, tmp_path, fault):
    server = spare_server()
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    with Redis.from_url(server.url) as client:
        Client(client).make_default()
        with pool(server) as process:
            id = executor_jobs.die_once_when_told.enqueue(str(notes), str(gate))
            until(lambda: lines(notes) == ["x"])
            children = children_of(process.pid)
            with fault(server, client):
                gate.touch()
                time.sleep(AWAY_SECONDS)
            assert ended(client, id).result == "lived"
            assert children_of(process.pid) == children
        assert reader.read(client, id).deaths == 1


@pytest.mark.parametrize("fault", [killed, frozen])
def test_a_timeout_bites_while_redis_is_unavailable(spare_server, fault):
    server = spare_server()
    with Redis.from_url(server.url) as client:
        Client(client).make_default()
        with pool(server) as process, pace() as second:
            id = executor_jobs.resist.options(timeout=2).enqueue("swallow")
            until(lambda: reader.read(client, id).status == "started")
            began = time.monotonic()
            (worker,) = children_of(process.pid)
            with fault(server, client):
                until(lambda: not is_alive(worker))
                assert time.monotonic() - began < 2 + 3 * second()
            assert ended(client, id).status == "failed"
            assert "its timeout of 2 s" in reader.read(client, id).reason


@pytest.mark.parametrize("fault", [killed, frozen])
def test_an_outage_longer_than_the_lease_takes_no_job_from_a_living_worker(spare_server, tmp_path, fault):
    server = spare_server()
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    with Redis.from_url(server.url) as client:
        Client(client).make_default()
        with pool(server, 2) as first, pool(server, 2) as second:
            ids = pool_jobs.note_when_told.enqueue_many([(str(notes), str(gate), str(n)) for n in range(4)])
            until(lambda: len(lines(notes)) == 4)
            children = [children_of(each.pid) for each in (first, second)]
            with fault(server, client):
                time.sleep(LONG_SECONDS)
            now = time.time()
            until(lambda: len(client.zrangebyscore(keys.LEASES, now, "+inf")) == 4)
            until(lambda: not client.exists(keys.LULL))
            vanished(client, "gone")
            until(lambda: client.zscore(keys.LEASES, "gone") is None)  # both could have rescued since
            gate.touch()
            assert {ended(client, id).status for id in ids} == {"finished"}
            assert [children_of(each.pid) for each in (first, second)] == children
        assert sorted(lines(notes)) == sorted(f"{what} {n}" for what in ("begin", "end") for n in range(4))
        assert {reader.read(client, id).deaths for id in ids} == {0}


def test_after_an_outage_longer_than_the_lease_jobs_of_a_host_that_died_run_again(spare_server, tmp_path):
    server = spare_server()
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    with Redis.from_url(server.url) as client:
        Client(client).make_default()
        with pool(server) as gone, pace() as second:
            id = pool_jobs.note_when_told.enqueue(str(notes), str(gate), "a")
            until(lambda: lines(notes) == ["begin a"])
            os.killpg(gone.pid, signal.SIGKILL)
            vanished(client, keys.worker_name(client.smembers(keys.WORKERS).pop().decode()))
            with pool(server):
                began = time.monotonic()
                until(lambda: lines(notes) == ["begin a"] * 2)
                assert time.monotonic() - began < 15 * second()
                gate.touch()
                assert ended(client, id).result == "a"


def vanished(client: Redis, worker: str) -> None:
    client.zadd(keys.LEASES, {worker: 1})


def until_released(client: Redis, condition: Callable[[], object]) -> None:
    """Wait for the condition, while no lock of a singleton that is held now ends by itself."""
    held = {lock: client.get(lock) for lock in client.keys("pm:lock:singleton *")}

    def is_true() -> object:
        for lock, value in held.items():
            if client.get(lock) == value:
                client.expire(lock, int(keys.LEASE_SECONDS))
        return condition()

    until(is_true)


def test_the_lock_of_a_process_that_dies_during_an_outage_is_released_after_it(spare_server, tmp_path):
    server, notes = spare_server(), tmp_path / "notes"
    with Redis.from_url(server.url) as client:
        Client(client).make_default()
        with pool(server) as process:
            limited_jobs.alone.enqueue(str(notes), "a", 60)
            until(lambda: lines(notes) == ["+a"])
            (worker,) = children_of(process.pid)
            with killed(server, client):
                os.kill(worker, signal.SIGKILL)
                until(lambda: children_of(process.pid) not in ([], [worker]))
            until_released(client, lambda: lines(notes) == ["+a", "+a"])


def test_the_lock_of_a_singleton_that_ends_during_an_outage_is_released_after_it(spare_server, tmp_path):
    server, notes, gate = spare_server(), tmp_path / "notes", tmp_path / "gate"
    with Redis.from_url(server.url) as client:
        Client(client).make_default()
        with pool(server):
            limited_jobs.alone_when_told.enqueue(str(notes), str(gate), "a")
            limited_jobs.alone_when_told.enqueue(str(notes), str(gate), "b")
            until(lambda: lines(notes) == ["+a"])
            with killed(server, client):
                gate.touch()
                until(lambda: lines(notes) == ["+a", "-a"])
                time.sleep(AWAY_SECONDS)  # in which the process tries to release the lock
            until_released(client, lambda: lines(notes) == ["+a", "-a", "+b", "-b"])


def test_a_network_cut_that_is_shorter_than_the_lease_harms_no_job_of_its_host(server, client, tmp_path):
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    Client(client).make_default()
    proxy = LosingProxy(tmp_path / "socket", server.socket_path)
    host = SimpleNamespace(url=proxy.url)
    try:
        with pool(host, 3) as cut_off, pool(server):
            calls = [(str(notes), str(gate), str(n)) for n in range(4)]
            ids = pool_jobs.note_when_told.enqueue_many(calls)
            until(lambda: len(lines(notes)) == 4)
            children = children_of(cut_off.pid)
            proxy.is_cut = True
            time.sleep(CUT_SECONDS)
            proxy.is_cut = False
            vanished(client, "gone")
            until(lambda: client.zscore(keys.LEASES, "gone") is None)
            gate.touch()
            assert {ended(client, id).status for id in ids} == {"finished"}
            assert children_of(cut_off.pid) == children
    finally:
        proxy.close()
    assert sorted(lines(notes)) == sorted(f"{what} {n}" for what in ("begin", "end") for n in range(4))


def test_a_worker_gives_up_a_job_whose_end_the_server_forgot(server, client, tmp_path):
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    Client(client).make_default()
    with pool(server) as process:
        id = pool_jobs.note_when_told.enqueue(str(notes), str(gate), "a")
        until(lambda: reader.read(client, id).status == "started")
        children = children_of(process.pid)
        (claims,) = client.keys("pm:claims:*")
        before = {key: client.dump(key) for key in (claims, keys.job_key(id), "rq:wip:default")}
        gate.touch()
        assert ended(client, id).result == "a"
        until(lambda: not client.hexists(claims, id))
        assert ended(client, executor_jobs.where.enqueue()).result
        with client.pipeline() as failover:  # to a replica that had not seen the end
            for key, value in before.items():
                failover.restore(key, 0, value, replace=True)
            failover.zrem("rq:finished:default", id)
            failover.execute()
        assert ended(client, executor_jobs.where.enqueue()).result
        assert ended(client, id).result == "a"
        assert lines(notes) == ["begin a", "end a"] * 2
        assert children_of(process.pid) == children
        assert set(client.hkeys(claims)) & {id.encode()} == set()
    assert client.zcard("rq:wip:default") == 0


def test_in_a_full_memory_leases_go_on_and_long_jobs_are_marked(server, client):
    Client(client).make_default()
    id = pool_jobs.add.enqueue(1)
    (job,) = Claims(client, "w1", Strict(["default"])).finish_and_claim("c1", [], 1).jobs
    scoreboard = Scoreboard()
    scoreboard.register()
    client.zadd(keys.LEASES, {"w1": 1})
    with full(server, client):
        Heartbeat(client, {"w1": scoreboard}).beat()
        Marks(client).mark("w1", [RunningJob(MAIN, id, job.execution, 0.0, float("inf"), False)], 1.0)
    assert client.zscore(keys.LEASES, "w1") > time.time()
    assert reader.read(client, id).status == "started"
