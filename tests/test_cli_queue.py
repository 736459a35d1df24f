"""`packmule queue pause, resume and limit`, as an operator uses them."""

from __future__ import annotations

import json
import re
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


def test_jobs_are_retried_canceled_and_deleted_by_a_filter(packmule: CommandLine, client: Redis) -> None:
    for number in range(7):
        data = wire.encode_call("shop.add" if number else "shop.boom", (), {"a": number})
        client.hset(f"rq:job:j{number}", mapping={"data": data, "origin": "low", "status": "failed"})
        client.zadd("rq:failed:low", {f"j{number}": time.time() + 60})
    assert "name the jobs, or filter them" in complaint(packmule.run("job", "delete"), 2)
    assert "not both" in complaint(packmule.run("job", "delete", "j1", "--name", "add"), 2)
    assert "--all alone" in complaint(packmule.run("job", "cancel", "--all", "--name", "add"), 2)
    assert "retry is for" in complaint(packmule.run("job", "retry", "--status", "queued"), 2)
    dry = packmule.output("job", "retry", "--name", "add", "--queue", "low", "--dry-run")
    assert re.fullmatch(r"6 jobs would be queued: (j[1-6], ){5}\.\.\.\n?", dry)
    assert packmule.output("job", "retry", "--arg", "a=3") == "1 job queued"
    assert client.lrange("rq:queue:low", 0, -1) == [b"j3"]
    assert packmule.run("job", "delete", "--name", "add").returncode == 130  # it asks, and nobody answers
    assert packmule.output("job", "cancel", "--all", "--yes") == "1 job canceled"
    assert (
        packmule.output("job", "delete", "--name", "add", "--status", "failed", "--yes") == "5 jobs deleted"
    )
    assert packmule.output("job", "delete", "--name", "add", "--dry-run") == "1 job would be deleted: j3"
    assert packmule.output("job", "delete", "--error", "KeyError", "--yes") == "0 jobs deleted"
    client.hset("rq:job:j0", "callback_due", "callback failed failure end 60 x")
    done = packmule.run("job", "delete", "--all", "--yes")
    assert (done.stdout, done.returncode) == ("1 job deleted\n", 1)
    assert "1 job skipped: can't be deleted yet: its callback is due" in done.stderr
    audit = [json.loads(line) for line in packmule.output("audit", "--json").splitlines()]
    verbs = ["retry", "retry", "cancel", "delete", "delete", "delete"]
    assert [each["action"].split()[1] for each in audit] == verbs
    refused = {"status": "queued", "matched": 0, "done": 0, "error": "InvalidFilter"}
    assert audit[0]["subject"] == refused
    assert audit[1]["subject"] == {"args": ["a"], "matched": 1, "done": 1}
    assert audit[3]["subject"] == {"name": "add", "status": "failed", "matched": 5, "done": 5}
    assert audit[5]["subject"] == {"matched": 2, "done": 1, "exit": 1}


def test_an_id_can_not_write_on_the_terminal_that_asks(packmule: CommandLine, client: Redis) -> None:
    client.hset("rq:job:a\x1b[31m", mapping={"data": "x", "origin": "low", "status": "queued"})
    client.rpush("rq:queue:low", "a\x1b[31m")
    asked = packmule.run("job", "delete", "--all").stdout
    assert "Delete 1 job: a\\x1b[31m?" in asked


def test_a_scheduled_job_is_run_and_one_is_copied(packmule: CommandLine, client: Redis) -> None:
    data = wire.encode_call("packmule.jobs.files.file", (), {"source": "a.csv"})
    client.hset("rq:job:a", mapping={"data": data, "origin": "low", "status": "scheduled"})
    client.zadd("rq:scheduled:low", {"a": time.time() + 60})
    assert packmule.output("job", "run", "a") == "a queued"
    assert "job a is queued; only scheduled jobs" in complaint(packmule.run("job", "run", "a"), 1)
    new = packmule.output("job", "copy", "a", "--set", "source=b.csv")
    copied = json.loads(packmule.output("job", "show", new, "--json"))
    assert (copied["queue"], copied["kwargs"] or copied["args"]) != ("", {})
    assert "b.csv" in json.dumps([copied["args"], copied["kwargs"]])
    assert "colour" in complaint(packmule.run("job", "copy", "a", "--set", "colour=red"), 2)


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
    assert " 11.1 h " in packmule.output("job", "list", "--status", "started")


def test_a_worker_is_made_quiet_resumed_and_told_to_end(packmule: CommandLine, client: Redis) -> None:
    client.sadd("rq:workers", "rq:worker:w1")
    client.hset("rq:worker:w1", mapping={"state": "idle", "queues": "low"})
    assert packmule.output("worker", "quiet", "w1") == "w1 is quiet"
    assert packmule.output("worker", "quiet", "w1") == "w1 was already quiet"
    assert "idle, quiet" in packmule.output("status")
    assert packmule.output("worker", "resume", "w1") == "w1 takes jobs again"
    assert packmule.output("worker", "stop", "w1") == "w1 was told to stop"
    for verb in ("quiet", "resume", "stop"):
        assert "no worker is called w2" in complaint(packmule.run("worker", verb, "w2"), 2)
    assert "worker stop names=w1" in packmule.output("audit")
