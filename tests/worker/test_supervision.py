"""Supervision: recycling, resizing, frozen processes, dumps, and processes that jobs fork."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from packmule.jobs import keys, reader
from packmule.tests.worker import executor_jobs, pool_jobs
from packmule.tests.worker.pools import (
    children_of,
    drained,
    ended,
    is_alive,
    lines,
    logging_pool,
    pool,
    until,
)
from packmule.worker.order import Strict, Weighted, of, parse

pytestmark = pytest.mark.usefixtures("produce")

AT_THE_FIRST_START = """
import os, sys
from pathlib import Path
from packmule.coordination.redis.connection import connect
from packmule.worker import rescue
from packmule.worker.pool import child, pool
from packmule.worker.process import claim

def start(*_):
    assembled = [bool(script._source) for script in (claim._finish_and_claim, rescue._rescue)]
    os._exit(0 if all(assembled) else 1)

child.start = start
pool.Pool(lambda: connect(sys.argv[1], Path()), ["default"], 1).run()
"""


def test_a_process_leaves_after_its_number_of_jobs_and_another_goes_on(server, client):
    with pool(server, max_jobs=3):
        ids = executor_jobs.where.enqueue_many([()] * 9)
        pids = [ended(client, id).result[0] for id in ids]
    assert set(Counter(pids).values()) == {3}


def test_a_process_with_threads_and_tasks_leaves_after_its_number_of_jobs_too(server, client):
    with pool(server, max_jobs=4, threads=3):
        functions = (executor_jobs.where, executor_jobs.where_async)
        ids = [function.enqueue(0.05) for function in functions for _ in range(6)]
        pids = [ended(client, id).result[0] for id in ids]
    assert set(Counter(pids).values()) == {4}


def test_a_process_over_its_max_memory_leaves_after_its_job(server, client):
    with pool(server, max_memory=200_000_000):
        first = ended(client, executor_jobs.grow.enqueue(170_000_000)).result
        until(lambda: ended(client, executor_jobs.where.enqueue()).result[0] != first)


def test_a_process_that_uses_twice_its_max_memory_is_killed_during_its_job(server, client):
    with pool(server, max_memory=200_000_000):
        record = ended(client, executor_jobs.grow_and_stay.enqueue(500_000_000))
        assert ended(client, pool_jobs.add.enqueue(1)).result == 2
    assert (record.status, record.deaths) == ("failed", 0)
    assert "MiB and was killed" in record.reason


def test_signals_make_the_pool_larger_and_smaller(server, client):
    with pool(server) as process:

        def has(count: int) -> bool:
            return len(children_of(process.pid)) == client.scard(keys.WORKERS) == count

        until(lambda: has(1))
        process.send_signal(signal.SIGTTIN)
        until(lambda: has(2))  # two pending signals would be one
        process.send_signal(signal.SIGTTIN)
        until(lambda: has(3))
        process.send_signal(signal.SIGTTOU)
        until(lambda: has(2))
        assert ended(client, pool_jobs.add.enqueue(1)).result == 2


def test_a_pool_grows_with_its_backlog_and_shrinks_when_there_is_none(server, client, tmp_path):
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    ids = pool_jobs.note_when_told.enqueue_many([(str(notes), str(gate), str(n)) for n in range(8)])
    with pool(server, autoscale="1:3", idle=0.5) as process:
        until(lambda: len(lines(notes)) == 3)
        assert len(children_of(process.pid)) == 3
        gate.touch()
        assert [ended(client, id).result for id in ids] == [str(n) for n in range(8)]
        until(lambda: len(children_of(process.pid)) == 1)


def test_a_sigquit_writes_the_stacks_of_the_pool_and_of_its_processes(server, client, tmp_path):
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    id = pool_jobs.note_when_told.enqueue(str(notes), str(gate), "a")
    with logging_pool(server) as (process, logged):
        until(lambda: lines(notes) == ["begin a"])
        process.send_signal(signal.SIGQUIT)
        until(lambda: "in note_when_told" in logged() and "in _dump" in logged())
        gate.touch()
        assert ended(client, id).result == "a"


def test_the_jobs_of_a_frozen_process_run_elsewhere(server, client, tmp_path):
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    id = pool_jobs.note_when_told.enqueue(str(notes), str(gate), "a")
    with pool(server, frozen=0.5) as process:
        until(lambda: lines(notes) == ["begin a"])
        (frozen,) = children_of(process.pid)
        os.kill(frozen, signal.SIGSTOP)
        until(lambda: lines(notes) == ["begin a"] * 2)
        gate.touch()
        assert ended(client, id).result == "a"
        assert not is_alive(frozen)
    record = reader.read(client, id)
    assert (record.deaths, record.attempts) == (0, 0)


def test_a_process_that_was_frozen_for_a_moment_continues(server, client, tmp_path):
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    id = pool_jobs.note_when_told.enqueue(str(notes), str(gate), "a")
    with pool(server, frozen=4) as process:
        until(lambda: lines(notes) == ["begin a"])
        (frozen,) = children_of(process.pid)
        os.kill(frozen, signal.SIGSTOP)
        until(lambda: "(stopped)" in Path(f"/proc/{frozen}/status").read_text())
        os.kill(frozen, signal.SIGCONT)
        time.sleep(4.5)  # longer than a frozen process is let be
        gate.touch()
        assert ended(client, id).result == "a"
        assert children_of(process.pid) == [frozen]


def test_a_job_that_forks_and_returns_twice_is_performed_once_and_its_worker_lives(server, client, tmp_path):
    notes = tmp_path / "notes"
    with pool(server) as process:
        until(lambda: client.scard(keys.WORKERS) == 1)
        children = children_of(process.pid)
        id = executor_jobs.fork_and_return.enqueue(str(notes))
        assert ended(client, id).result == "done"
        assert ended(client, pool_jobs.add.enqueue(1)).result == 2
        assert children_of(process.pid) == children
    assert client.xlen(keys.results_key(id)) == 1
    assert lines(notes) == ["x"]


def test_no_job_is_lost_to_a_child_that_a_dead_worker_left_behind_with_its_sockets(server, client, tmp_path):
    notes = tmp_path / "notes"
    with pool(server):
        until(lambda: client.scard(keys.WORKERS) == 1)
        until(lambda: any(each["cmd"] == "blmove" for each in client.client_list()))
        id = executor_jobs.die_once_with_a_child_left.enqueue(str(notes))
        assert ended(client, id).result == "lived"
        for number in range(20):
            assert ended(client, pool_jobs.add.enqueue(number)).result == number + 1
        (child,) = lines(tmp_path / "notes child")
        assert is_alive(int(child))
        os.kill(int(child), signal.SIGKILL)


def test_nothing_is_left_of_a_pool_that_is_killed_while_it_drains(server, client, tmp_path):
    notes = tmp_path / "notes"
    executor_jobs.note_when_told_isolated.enqueue(str(notes), str(tmp_path / "never"), "a")
    with pool(server, 2) as process:
        until(lambda: lines(notes) == ["begin a"] and client.scard(keys.WORKERS) == 2)
        family = children_of(process.pid)
        family += [pid for child in family for pid in children_of(child)]
        process.terminate()
        process.kill()
        until(lambda: not any(is_alive(pid) for pid in family))
    assert len(family) == 3


def test_a_pool_has_assembled_the_scripts_of_claims_and_rescues_before_a_process_can_die(server):
    # It takes 60 ms of processor time, on a busy machine most of the second that a rescue may take.
    subprocess.run([sys.executable, "-c", AT_THE_FIRST_START, server.url], check=True, timeout=60)


def test_queues_come_first_evenly_in_proportion_to_their_weights():
    order = Weighted({"high": 5, "default": 3, "low": 1})
    firsts = [order.next()[0] for _ in range(900)]
    assert Counter(firsts) == {"high": 500, "default": 300, "low": 100}
    for start in range(0, 900, 9):
        assert Counter(firsts[start : start + 9]) == {"high": 5, "default": 3, "low": 1}
    assert all(sorted(order.next()) == ["default", "high", "low"] for _ in range(20))


def test_queues_without_weights_are_served_strictly():
    assert of(parse(["high,low"])).next() == ["high", "low"]
    assert isinstance(of(parse(["high", "low"])), Strict)
    assert isinstance(of(parse(["high:1,low:1"])), Weighted)


def test_a_queue_with_a_low_weight_gets_its_share(server, client, tmp_path):
    notes = tmp_path / "notes"
    for queue in ("high", "low"):
        pool_jobs.note.options(queue=queue).enqueue_many([(str(notes), queue)] * 200)
    assert drained(server, queues="high:3,low:1", most=1) == 0
    served = lines(notes)
    assert len(served) == 400
    assert 20 <= Counter(served[:100])["low"] <= 30


def test_jobs_claimed_with_one_that_blocks_its_process_run_elsewhere(server, client, tmp_path):
    path, gate = tmp_path / "notes", tmp_path / "gate"
    os.mkfifo(gate)
    pool_jobs.add.enqueue_many([(1,)] * 40)
    long = executor_jobs.keep_the_lock.enqueue(str(path), str(gate))
    behind = pool_jobs.note.enqueue_many([(str(path), f"note {number}") for number in range(20)])
    with pool(server, 2):
        for id in behind:
            assert ended(client, id).status == "finished"
        gate.write_text("")
        assert ended(client, long).status == "finished"
    assert lines(path)[-1] == "ends"
    assert Counter(lines(path)) == Counter(["begins", "ends", *(f"note {number}" for number in range(20))])


def test_a_job_that_arrives_at_a_stalled_worker_is_performed_once_by_another(server, client, tmp_path):
    path, gate = tmp_path / "notes", tmp_path / "gate"
    os.mkfifo(gate)
    with pool(server, 2):
        until(
            lambda: sum(each["cmd"] == "blmove" for each in client.client_list()) == 6
        )  # both on all queues
        long = executor_jobs.keep_the_lock.enqueue(str(path), str(gate))
        until(lambda: lines(path) == ["begins"])
        for number in range(10):
            id = pool_jobs.note.options(queue="low").enqueue(str(path), f"note {number}")
            assert ended(client, id).status == "finished"
        gate.write_text("")
        assert ended(client, long).status == "finished"
        last = pool_jobs.note.options(queue="low").enqueue(str(path), "last")
        assert ended(client, last).status == "finished"
    assert Counter(lines(path)) == Counter(["begins", "ends", "last", *(f"note {n}" for n in range(10))])
    assert lines(path)[-2:] == ["ends", "last"]
