"""`packmule queue pause, resume and limit`, as an operator uses them."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis import Redis

from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.jobs.queues import paused, rates
from packmule.tests.command_line import CommandLine, complaint, environment_in


@pytest.fixture
def packmule(server: EmbeddedServer, tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path, environment_in(tmp_path, server.url))


def test_a_queue_is_paused_and_resumed(packmule: CommandLine, client: Redis) -> None:
    assert packmule.output("queue", "pause", "high", "low") == "high paused\nlow paused"
    assert packmule.output("queue", "pause", "high") == "high was already paused"
    assert paused(client) == {"high", "low"}
    assert packmule.output("queue", "resume", "high", "default") == "high resumed\ndefault was not paused"
    assert paused(client) == {"low"}


def test_a_queue_is_given_a_rate_and_freed_of_it(packmule: CommandLine, client: Redis) -> None:
    assert (
        packmule.output("queue", "limit", "default", "100/m burst 5") == "default is limited to 100/m burst 5"
    )
    assert rates(client) == {"default": "100/m burst 5"}
    assert packmule.output("queue", "limit", "default", "none") == "default has no rate limit"
    assert rates(client) == {}


def test_mistakes_are_told_in_one_line(packmule: CommandLine) -> None:
    assert "no queue is called 'hihg'" in complaint(packmule.run("queue", "pause", "hihg"), 2)
    assert "no queue is called 'hihg'" in complaint(packmule.run("queue", "limit", "hihg", "1/s"), 2)
    assert "is not a rate" in complaint(packmule.run("queue", "limit", "high", "10/fortnight"), 2)


def test_a_queue_is_purged_only_when_that_is_confirmed(packmule: CommandLine, client: Redis) -> None:
    for id in "ab":
        client.hset(f"rq:job:{id}", mapping={"data": "[]", "origin": "low", "status": "queued"})
        client.rpush("rq:queue:low", id)
    assert packmule.run("queue", "purge", "low").returncode != 0
    assert client.llen("rq:queue:low") == 2
    assert packmule.output("queue", "purge", "low", "--yes") == "low: 2 jobs deleted"
    assert client.llen("rq:queue:low") == 0


def test_failed_jobs_are_let_run_again(packmule: CommandLine, client: Redis) -> None:
    for id in "ab":
        client.hset(f"rq:job:{id}", mapping={"data": "[]", "origin": "low", "status": "failed"})
        client.zadd("rq:failed:low", {id: 1})
    assert packmule.output("job", "retry", "a") == "a queued"
    assert packmule.output("job", "retry", "--failed", "low") == "b queued"
    assert client.lrange("rq:queue:low", 0, -1) == [b"a", b"b"]
    assert "job a is queued; only failed" in complaint(packmule.run("job", "retry", "a"), 1)
    assert "name the jobs, or a queue" in complaint(packmule.run("job", "retry"), 2)
