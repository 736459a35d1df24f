"""`packmule worker` and `scheduler` as processes, and the life of the embedded server around commands."""

from __future__ import annotations

import fcntl
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from packmule.coordination.redis.connection import connect
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.jobs import keys, reader, wire
from packmule.tests.command_line import DEADLINE, CommandLine, complaint, environment_in, until

NAP = """
import time

from packmule.jobs import context


@job
def nap(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


@job
def nap_until_stopped() -> str:
    while not context.running().is_draining():
        time.sleep(0.01)
    return "slept"
"""


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[CommandLine]:
    """Commands on an embedded server of their own, which is stopped at the end whatever happens."""
    commands = CommandLine(tmp_path, environment_in(tmp_path, None, NAP))
    yield commands
    EmbeddedServer(commands.data_dir).stop()


@pytest.fixture
def packmule(tmp_path: Path, server: EmbeddedServer, client: Redis) -> CommandLine:
    """Commands on the shared server, which is empty at the start."""
    return CommandLine(tmp_path, environment_in(tmp_path, server.url, NAP))


def is_running(data_dir: Path) -> bool:
    """Whether a server process lives on `data_dir`: it holds this lock for as long as it does."""
    with (data_dir / "server.lock").open("r+b") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_the_embedded_server_leaves_with_the_last_command_and_keeps_what_it_was_given(
    embedded: CommandLine,
) -> None:
    id = embedded.output("enqueue", "call", "shop.add", "a=1", "b=2")
    assert not is_running(embedded.data_dir)
    embedded.output("worker", "--burst")
    assert not is_running(embedded.data_dir)
    record = json.loads(embedded.output("job", "show", id, "--json"))
    assert (record["status"], record["result"]) == ("finished", 3)
    assert not is_running(embedded.data_dir)


def test_the_embedded_server_stays_while_a_worker_is_running(embedded: CommandLine) -> None:
    with embedded.started("worker", "--processes", "1") as worker:
        assert embedded.output("enqueue", "call", "shop.add", "a=1", "--wait") == "2"
        first = EmbeddedServer(embedded.data_dir).pid()
        embedded.output("status")
        assert EmbeddedServer(embedded.data_dir).pid() == first is not None
        worker.terminate()
        _, log = worker.communicate(timeout=DEADLINE)
        assert worker.returncode == 0, log
    assert not is_running(embedded.data_dir)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_command_that_is_told_to_stop_takes_its_server_with_it(
    embedded: CommandLine, signum: int, code: int
) -> None:
    server = EmbeddedServer(embedded.data_dir)
    with embedded.started("enqueue", "call", "shop.add", "a=1", "--wait") as waiting:
        assert waiting.stderr is not None
        assert "no worker is running" in waiting.stderr.readline()
        assert server.pid()
        waiting.send_signal(signum)
        waiting.communicate(timeout=DEADLINE)
        assert waiting.returncode == code
    assert not is_running(embedded.data_dir)


def test_a_scheduler_that_leaves_last_takes_its_server_with_it(embedded: CommandLine) -> None:
    server = EmbeddedServer(embedded.data_dir)
    with embedded.started("scheduler") as scheduler:
        assert scheduler.stderr is not None
        assert "leads" in scheduler.stderr.readline()
        assert server.pid()
        scheduler.terminate()
        _, log = scheduler.communicate(timeout=DEADLINE)
        assert scheduler.returncode == 0, log
    assert not is_running(embedded.data_dir)


def test_a_burst_drains_every_queue_and_leaves(packmule: CommandLine, client: Redis) -> None:
    ids = [
        packmule.output("enqueue", "call", "shop.add", f"a={number}", "--queue", queue)
        for number, queue in enumerate(("high", "default", "low"))
    ]
    packmule.output("worker", "--burst")
    assert [reader.read(client, id).result for id in ids] == [1, 2, 3]
    assert client.scard(keys.WORKERS) == 0


def test_a_worker_serves_only_the_queues_it_is_given(packmule: CommandLine, client: Redis) -> None:
    ids = {
        queue: packmule.output("enqueue", "call", "shop.add", "a=1", "--queue", queue)
        for queue in ("high", "low")
    }
    packmule.output("worker", "--burst", "-q", "low")
    assert reader.read(client, ids["low"]).status == "finished"
    assert reader.read(client, ids["high"]).status == "queued"


def test_settings_of_jobs_reach_the_processes(packmule: CommandLine, client: Redis) -> None:
    large, unknown = (packmule.output("enqueue", "call", "shop.add", f"a={number}") for number in (10**6, 1))
    client.hset(keys.job_key(unknown), "data", wire.encode_call("shop.tomorrow", (), {}))
    bounds = {"PACKMULE_MAX_RESULT_BYTES": "3", "PACKMULE_UNKNOWN_FOR": "0"}
    done = packmule.run("worker", "--burst", "--no-scheduler", **bounds)
    assert done.returncode == 0, done.stderr
    assert "a result may hold 3" in (reader.read(client, large).reason or "")
    assert "shop.tomorrow is not a registered job" in (reader.read(client, unknown).reason or "")


def test_sigterm_lets_the_running_job_finish_and_gives_the_rest_back(
    packmule: CommandLine, client: Redis
) -> None:
    with packmule.started("worker", "--processes", "1", "--no-scheduler") as worker:
        running = packmule.output("enqueue", "call", "shop.nap_until_stopped")
        until(lambda: reader.read(client, running).status == "started", "the job to start")
        waiting = [packmule.output("enqueue", "call", "shop.add", "a=1") for _ in range(2)]
        worker.terminate()
        _, log = worker.communicate(timeout=DEADLINE)
    assert worker.returncode == 0, log
    ended = reader.read(client, running)
    assert (ended.status, ended.result) == ("finished", "slept")
    for id in waiting:
        record = reader.read(client, id)
        assert (record.status, record.attempts, record.deaths) == ("queued", 0, 0)
    assert reader.ids(client, "default", "queued", 10) == waiting
    assert client.scard(keys.WORKERS) == 0


def test_a_job_that_outlives_the_grace_is_given_back_whole(packmule: CommandLine, client: Redis) -> None:
    with packmule.started("worker", "--processes", "1", "--no-scheduler", PACKMULE_GRACE="0.5") as worker:
        id = packmule.output("enqueue", "call", "shop.nap", "seconds=30")
        until(lambda: reader.read(client, id).status == "started", "the job to start")
        worker.terminate()
        worker.communicate(timeout=DEADLINE)
    assert worker.returncode == 1, "a cut job must show in the exit code"
    record = reader.read(client, id)
    assert (record.status, record.attempts, record.deaths) == ("queued", 0, 0)


def test_a_dedicated_scheduler_promotes_for_workers_without_one(packmule: CommandLine, client: Redis) -> None:
    with packmule.started("scheduler") as scheduler:
        id = packmule.output("enqueue", "call", "shop.add", "a=1", "--in", "0.5s")
        until(lambda: reader.read(client, id).status == "queued", "the job to be due")
        scheduler.terminate()
        scheduler.communicate(timeout=DEADLINE)
        assert scheduler.returncode == 0


def test_a_worker_that_cannot_start_says_so_in_one_line(packmule: CommandLine) -> None:
    assert "'hihg'" in complaint(packmule.run("worker", "-q", "hihg"), 2)
    said = complaint(packmule.run("worker", PACKMULE_MODULES="gone.jobs"), 2)
    assert "PACKMULE_MODULES" in said
    assert "gone.jobs" in said
    said = complaint(packmule.run("worker", "--burst", PACKMULE_REDIS_URL="redis://127.0.0.1:1/0"), 3)
    assert "redis://127.0.0.1:1/0" in said


def test_a_data_folder_that_is_a_file_is_told_in_one_line(embedded: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    said = complaint(embedded.run("status", PACKMULE_DATA_DIR=str(tmp_path / "taken")), 3)
    assert "taken" in said
    assert "PACKMULE_DATA_DIR" in said


def test_the_embedded_server_stays_while_anyone_is_connected(embedded: CommandLine) -> None:
    with connect(None, embedded.data_dir.absolute()) as other:
        other.ping()
        embedded.output("queue", "list")
        assert is_running(embedded.data_dir)
    embedded.output("queue", "list")
    assert not is_running(embedded.data_dir)
