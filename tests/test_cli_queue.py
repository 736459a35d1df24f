"""`packmule queue pause, resume and limit`, as an operator uses them."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import CommandLine, complaint, environment_in
from redis import Redis

from coordination.server import EmbeddedServer
from jobs.pause import paused
from jobs.queue_rate import rates


@pytest.fixture
def packmule(server: EmbeddedServer, tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path, environment_in(tmp_path, server.url))


def test_a_queue_is_paused_and_resumed(packmule: CommandLine, client: Redis) -> None:
    assert packmule.output("queue", "pause", "high", "low") == "high paused\nlow paused"
    assert packmule.output("queue", "pause", "high") == "high was paused already"
    assert paused(client) == {"high", "low"}
    assert packmule.output("queue", "resume", "high", "default") == "high resumed\ndefault was not paused"
    assert paused(client) == {"low"}


def test_a_queue_is_given_a_rate_and_freed_of_it(packmule: CommandLine, client: Redis) -> None:
    assert packmule.output("queue", "limit", "default", "100/m burst 5") == "default lets 100/m burst 5 begin"
    assert rates(client) == {"default": "100/m burst 5"}
    assert packmule.output("queue", "limit", "default", "none") == "default has no rate"
    assert rates(client) == {}


def test_mistakes_are_told_in_one_line(packmule: CommandLine) -> None:
    assert "no queue is called 'hihg'" in complaint(packmule.run("queue", "pause", "hihg"), 2)
    assert "no queue is called 'hihg'" in complaint(packmule.run("queue", "limit", "hihg", "1/s"), 2)
    assert "is no rate" in complaint(packmule.run("queue", "limit", "high", "10/fortnight"), 2)
