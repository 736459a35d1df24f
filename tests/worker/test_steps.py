"""Steps, sleeps and waits in real pools: what a run did isn't done again, and a wait holds nothing."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest
from redis import Redis

from packmule.coordination.redis.connection import connect
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.jobs import reader
from packmule.jobs.client import Client
from packmule.scheduler.maintenance.promote import promote
from packmule.tests.worker import pool_jobs, step_jobs
from packmule.tests.worker.pools import DEADLINE, children_of, ended, lines, logging_pool, pool, until

pytestmark = pytest.mark.usefixtures("produce")


def promoted(client: Redis, id: str) -> reader.JobInfo:
    """The job once it has ended, while what is due is promoted."""
    until(lambda: (promote(client), reader.read(client, id).has_ended)[1])
    return reader.read(client, id)


@pytest.mark.parametrize("ends", ["kill", "raise"])
def test_a_run_after_a_crash_or_an_error_goes_on_behind_the_steps(server, client, tmp_path, ends):
    notes = tmp_path / "notes"
    id = step_jobs.order.enqueue(str(notes), ends)
    with pool(server):
        assert ended(client, id).result == ["pay", "pack", "send"]
    assert lines(notes) == ["body", "pay", "pack", "body", "send"]


@pytest.mark.parametrize("job", ["waits", "waits_async", "waits_isolated"])
def test_a_job_that_waits_goes_on_with_the_signals_data(server, client, tmp_path, job):
    notes = tmp_path / "notes"
    handle = getattr(step_jobs, job).enqueue(str(notes))
    with pool(server):
        until(lambda: handle.status == "deferred")
        assert handle.signal("approved", {"by": "ada"}) == "woken"
        result = ended(client, handle).result
    assert {"by": "ada"} in (result, result[-1] if isinstance(result, list) else None)
    assert lines(notes).count("body") == 2
    assert len(lines(notes)) == (5 if job == "waits_async" else 3)


@pytest.mark.parametrize("policy", ["again", "fail", "ask"])
def test_a_process_that_dies_in_a_step_leaves_it_to_the_policy(server, client, tmp_path, policy):
    notes = tmp_path / "notes"
    handle = step_jobs.dies_in_a_step.enqueue(str(notes), policy)
    with pool(server):
        if policy == "ask":
            until(lambda: handle.status == "deferred")
            assert reader.read(client, handle).waits == "signal:step:charge"
            handle.signal("step:charge", "again")
        info = ended(client, handle)
    assert info.status == ("failed" if policy == "fail" else "finished")
    assert lines(notes).count("charge") == (1 if policy == "fail" else 2)


def test_an_isolated_process_that_dies_in_a_step_leaves_it_to_the_policy(server, client, tmp_path):
    id = step_jobs.dies_isolated_in_a_step.enqueue(str(tmp_path / "notes"))
    with pool(server):
        info = ended(client, id)
    assert (info.status, info.deaths) == ("failed", 1)
    assert "its outcome is unknown" in info.reason


def test_a_sleep_ends_when_its_time_has_come_and_not_before(server, client, tmp_path):
    notes = tmp_path / "notes"
    id = step_jobs.sleeps.enqueue(str(notes), 0.4)
    with pool(server):
        assert promoted(client, id).result >= 0.4
    assert lines(notes) == ["body", "body"]


def test_a_sleep_survives_the_server_and_all_workers(spare_server: Callable[[], EmbeddedServer], tmp_path):
    server, notes = spare_server(), tmp_path / "notes"
    with connect(None, server.data_dir) as client:
        id = Client(client).enqueue(step_jobs.sleeps, str(notes), 1.0)
        with pool(server):
            until(lambda: reader.read(client, id).status == "scheduled")
        os.kill(server.pid(), signal.SIGKILL)
        server.ensure()
        with pool(server):
            assert promoted(client, id).result >= 1.0
    assert lines(notes) == ["body", "body"]


def test_a_steps_end_waits_for_a_server_that_is_away(spare_server: Callable[[], EmbeddedServer], tmp_path):
    server, notes, gate = spare_server(), tmp_path / "notes", tmp_path / "gate"
    with connect(None, server.data_dir) as client:
        id = Client(client).enqueue(step_jobs.waits_at_a_gate, str(notes), str(gate))
        with pool(server):
            until(lambda: "begin" in lines(notes))
            os.kill(server.pid(), signal.SIGKILL)
            gate.touch()
            until(lambda: "first" in lines(notes))
            server.ensure()
            assert ended(client, id).result == ["first", "second"]
    assert lines(notes) == ["body", "begin", "first", "second"]


def test_a_draining_pool_gives_a_job_back_behind_the_step_that_runs(server, client, tmp_path):
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    id = step_jobs.waits_at_a_gate.enqueue(str(notes), str(gate))
    with logging_pool(server) as (process, log):
        until(lambda: "begin" in lines(notes))
        process.send_signal(signal.SIGTERM)
        until(lambda: "the pool stops, and waits" in log())
        gate.touch()
        assert process.wait(DEADLINE) == 0
    info = reader.read(client, id)
    with pool(server):
        assert ended(client, id).result == ["first", "second"]
    assert info.attempts == 0
    assert lines(notes).count("first") == lines(notes).count("second") == 1


def test_hundreds_of_jobs_that_wait_leave_a_worker_free(server, client, tmp_path):
    handles = step_jobs.waits.enqueue_many([(str(tmp_path / "notes"),)] * 300)
    with pool(server, threads=2):
        until(lambda: client.zcard("rq:deferred:default") == 300)
        assert ended(client, pool_jobs.add.enqueue(1)).result == 2
        for number, handle in enumerate(handles):
            handle.signal("approved", number)
        assert [ended(client, handle).result for handle in handles] == list(range(300))


@pytest.mark.parametrize("threads", [1, 4])
def test_kills_at_any_time_repeat_only_the_step_that_ran(server, client, tmp_path, threads):
    notes, steps, kills = tmp_path / "notes", 60, 2
    handle = step_jobs.many_steps.enqueue(str(notes), steps)
    chance = random.Random(threads)
    assert handle.signal("go", "on") == "kept"

    def goes_on(before: int) -> bool:
        promote(client)
        return len(lines(notes)) > before or handle.status == "finished"

    with pool(server, threads=threads) as process:
        for _ in range(kills):
            until(partial(goes_on, len(lines(notes))))
            children = children_of(process.pid)
            time.sleep(chance.uniform(0.01, 0.05))  # at any instant of the run
            for child in children:
                os.kill(child, signal.SIGKILL)
        assert promoted(client, handle).result == steps
    counts = Counter(lines(notes))
    assert sorted(counts, key=int) == [str(number) for number in range(steps)]
    assert sum(counts.values()) - steps <= kills
