"""Commands to workers, as RQ publishes them: stop a job, shut down, kill the horse."""

from __future__ import annotations

import time

import pytest
from rq.command import send_kill_horse_command, send_shutdown_command, send_stop_job_command
from rq.serializers import JSONSerializer

from packmule.jobs import keys, reader
from packmule.jobs.control import cancel
from packmule.tests.pace import pace
from packmule.tests.worker import executor_jobs, pool_jobs
from packmule.tests.worker.executor_jobs import EXECUTORS
from packmule.tests.worker.pools import DEADLINE, children_of, ended, is_alive, lines, pool, until

pytestmark = pytest.mark.usefixtures("produce")


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_running_job_that_is_asked_to_stop_may_clean_up_and_ends_stopped(
    server, client, tmp_path, executor
):
    nap, _, options = EXECUTORS[executor]
    notes = tmp_path / "notes"
    with pool(server, patience=60, **options) as process, pace() as second:
        id = getattr(executor_jobs, nap).options(timeout=60, retries=3).enqueue(str(notes))
        until(lambda: lines(notes) == ["begin"] and reader.read(client, id).status == "started")
        children = children_of(process.pid)
        until(lambda: client.pubsub_channels("rq:pubsub:*"))
        told = time.monotonic()
        send_stop_job_command(client, id, serializer=JSONSerializer)
        record = ended(client, id)
        assert time.monotonic() - told < 1 * second()
        assert children_of(process.pid) == children
    assert (record.status, record.deaths) == ("stopped", 0)
    assert record.reason == "Stopped: the job was canceled"
    assert lines(notes) == ["begin", "CancelledError" if executor == "async" else "Stopped"]
    assert client.zscore("rq:failed:default", id) is not None


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_job_that_will_not_stop_is_stopped_with_its_process(server, client, tmp_path, executor):
    _, resist, options = EXECUTORS[executor]
    with pool(server, **options), pace() as second:
        id = getattr(executor_jobs, resist).options(timeout=60, retries=3).enqueue("swallow")
        until(lambda: reader.read(client, id).status == "started")
        until(lambda: client.pubsub_channels("rq:pubsub:*"))
        told = time.monotonic()
        assert cancel(client, id, DEADLINE) == "stopped"
        assert time.monotonic() - told < 1.2 * second()
        assert ended(client, pool_jobs.add.enqueue(1)).result == 2
    record = reader.read(client, id)
    assert record.reason.endswith("the job was canceled while it ran")
    assert record.deaths == 0
    assert client.zscore("rq:failed:default", id) is not None


def test_a_worker_finishes_its_job_after_a_shutdown_command_and_is_replaced(server, client, tmp_path):
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    with pool(server) as process:
        id = pool_jobs.note_when_told.enqueue(str(notes), str(gate), "a")
        until(lambda: lines(notes) == ["begin a"])
        until(lambda: client.pubsub_channels("rq:pubsub:*"))
        (before,) = children_of(process.pid)
        (key,) = client.smembers(keys.WORKERS)
        send_shutdown_command(client, keys.worker_name(key.decode()))
        gate.touch()
        assert ended(client, id).result == "a"
        until(lambda: children_of(process.pid) not in ([before], []))
        assert ended(client, pool_jobs.add.enqueue(1)).result == 2
    assert not is_alive(before)


def test_a_killed_horse_fails_its_job_and_is_replaced(server, client, tmp_path):
    notes = tmp_path / "notes"
    with pool(server) as process:
        id = pool_jobs.note_when_told.enqueue(str(notes), str(tmp_path / "never"), "a")
        until(lambda: lines(notes) == ["begin a"])
        until(lambda: client.pubsub_channels("rq:pubsub:*"))
        (before,) = children_of(process.pid)
        (key,) = client.smembers(keys.WORKERS)
        send_kill_horse_command(client, keys.worker_name(key.decode()))
        record = ended(client, id)
        assert ended(client, pool_jobs.add.enqueue(1)).result == 2
        assert children_of(process.pid) != [before]
    assert record.status == "failed"
    assert "killed by a command" in record.reason


def test_commands_that_make_no_sense_are_ignored(server, client):
    with pool(server) as process:
        until(lambda: client.scard(keys.WORKERS) == 1)
        name = keys.worker_name(client.srandmember(keys.WORKERS).decode())
        channel = keys.commands_channel(name)
        until(lambda: client.pubsub_numsub(channel)[0][1])
        unreadable = b"\xff", b'{"command": "\xff"}', b'{"command": "dance", "a": ' + b"[" * 100_000
        for text in (*unreadable, b"[]", b'{"command": "dance"}', b'{"command": "stop-job"}'):
            client.publish(channel, text)
        (before,) = children_of(process.pid)
        send_shutdown_command(client, name)
        until(lambda: children_of(process.pid) not in ([before], []))
        assert ended(client, pool_jobs.add.enqueue(1)).result == 2
