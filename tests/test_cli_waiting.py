"""Processes that run on wait for a Redis that isn't up yet, and refuse at once what waiting can't mend."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from packmule.coordination.redis.connection import connect
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.jobs import keys, reader
from packmule.tests.command_line import DEADLINE, CommandLine, complaint, environment_in, until


@pytest.fixture
def later(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A server that is not up."""
    server = EmbeddedServer(tmp_path / "later")
    yield server
    server.stop()


@pytest.fixture
def packmule(tmp_path: Path, later: EmbeddedServer) -> CommandLine:
    return CommandLine(tmp_path, environment_in(tmp_path, later.url))


def test_a_pool_and_a_scheduler_wait_for_redis_and_then_work(
    packmule: CommandLine, later: EmbeddedServer, tmp_path: Path
) -> None:
    logs = [tmp_path / "worker.log", tmp_path / "scheduler.log"]
    with ExitStack() as running:
        for log in logs:
            output = running.enter_context(log.open("w"))
            running.enter_context(packmule.started(log.stem, stderr=output))
        until(lambda: all("waiting for it" in log.read_text() for log in logs), "both to wait")
        later.ensure()
        client = running.enter_context(connect(None, later.data_dir))
        until(lambda: client.exists(keys.LEADER), "a leader", logs[1].read_text)
        id = packmule.output("enqueue", "call", "shop.add", "a=1", "b=2")
        assert reader.wait(client, id, DEADLINE).result == 3
        assert [log.read_text().count("waiting for it") for log in logs] == [1, 1]


def test_a_waiting_pool_ends_when_it_is_told_to(packmule: CommandLine, tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    with log.open("w") as output, packmule.started("worker", stderr=output) as worker:
        until(lambda: "waiting for it" in log.read_text(), "the pool to wait")
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(DEADLINE) == 128 + signal.SIGTERM


@pytest.mark.parametrize("command", ["worker", "scheduler"])
def test_a_host_that_nobody_knows_is_one_plain_line(packmule: CommandLine, command: str) -> None:
    with pytest.raises(socket.gaierror) as refusal:
        socket.getaddrinfo("no-such-host.invalid", 6379)
    if refusal.value.errno == socket.EAI_AGAIN:
        pytest.skip("no name server answers here")
    complaint(packmule.run(command, PACKMULE_REDIS_URL="redis://no-such-host.invalid:6379/0"), 3)


@pytest.mark.parametrize("command", ["worker", "scheduler"])
def test_a_wrong_url_is_one_plain_line(packmule: CommandLine, command: str) -> None:
    complaint(packmule.run(command, PACKMULE_REDIS_URL="redis://127.0.0.1:1/x"), 2)


def test_a_burst_does_not_wait(packmule: CommandLine) -> None:
    assert "is it running?" in complaint(packmule.run("worker", "--burst"), 3)
