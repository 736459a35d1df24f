"""`packmule queue pause, resume and limit`, as an operator uses them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from redis import Redis

from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.jobs import wire
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


@pytest.mark.parametrize(("verb", "status"), [("cancel", "canceled"), ("retry", "queued")])
def test_an_unknown_id_among_others_is_named_and_stops_none_of_them(packmule, client, verb, status):
    ids = ["first", "last"]
    state = "queued" if verb == "cancel" else "failed"
    for id in ids:
        client.hset(f"rq:job:{id}", mapping={"data": "[]", "origin": "low", "status": state})
        client.rpush("rq:queue:low", id)
    done = packmule.run("job", verb, "first", "nope", "last")
    assert done.stdout.splitlines() == [f"{id} {status}" for id in ids]
    assert "no job has the id nope" in done.stderr
    assert done.returncode == 2


def test_a_list_of_jobs_says_since_when_one_runs(packmule: CommandLine, client: Redis) -> None:
    made, ended, began = (wire.time_text(time.time() - ago) for ago in (90_000, 80_000, 40_000))
    record = {"data": "[]", "origin": "low", "status": "started"}
    client.hset("rq:job:a", mapping=record | {"created_at": made, "ended_at": ended, "started_at": began})
    client.zadd("rq:wip:low", {"a:1": time.time() + 60})
    assert " 11 h ago " in packmule.output("job", "list", "--status", "started")
