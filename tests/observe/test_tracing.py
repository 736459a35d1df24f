"""Traces: one from the enqueue to the job, whichever executor runs it."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
from redis import Redis

from packmule import hooks
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.jobs.sending import sending
from packmule.tests.command_line import CommandLine, environment_in

JOBS = """

@job
async def waiting() -> None: ...


@job(isolate=True)
def isolated() -> None: ...


@job
async def late() -> None:
    import asyncio

    await asyncio.sleep(60)


@job
def again() -> None:
    from packmule import Retry

    raise Retry(after=60)
"""


@pytest.fixture
def packmule(server: EmbeddedServer, client: Redis, tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path, environment_in(tmp_path, server.url, JOBS, PACKMULE_TRACING="console"))


def spans(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith('{"name"')]


@pytest.mark.parametrize("kind", ["add a=1", "boom", "waiting", "isolated", "late", "again"])
def test_a_job_is_in_the_trace_of_its_enqueue(packmule: CommandLine, client: Redis, kind: str) -> None:
    name, *arguments = kind.split()
    timeout = "1" if name == "late" else "60"
    enqueued = packmule.run("enqueue", "call", f"shop.{name}", *arguments, "--timeout", timeout)
    (sent,) = spans(enqueued.stderr)
    worked = packmule.run("worker", "--burst", "--processes", "1", "--no-scheduler")
    (done,) = spans(worked.stderr)
    assert (sent["kind"], done["kind"]) == ("SpanKind.PRODUCER", "SpanKind.CONSUMER")
    assert (sent["name"], done["name"]) == ("send default", "process default")
    assert sent["attributes"] == {
        "messaging.system": "packmule",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": "default",
        "messaging.message.id": enqueued.stdout.strip(),
        "packmule.type": f"shop.{name}",
    }
    assert done["context"]["trace_id"] == sent["context"]["trace_id"]
    assert done["parent_id"] == sent["context"]["span_id"]
    (link,) = done["links"]
    assert link["context"]["span_id"] == done["parent_id"]
    errors = {"boom": "ValueError", "late": "rq.timeouts.JobTimeoutException"}
    outcome = "retried" if name == "again" else "failed" if name in errors else "finished"
    assert done["attributes"] == ({"error.type": errors[name]} if name in errors else {}) | {
        "packmule.outcome": outcome,
        "messaging.system": "packmule",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "default",
        "messaging.message.id": enqueued.stdout.strip(),
        "packmule.type": f"shop.{name}",
        "packmule.attempt": 1,
    }
    assert done["resource"]["attributes"]["service.name"] == "packmule"
    assert done["status"]["status_code"] == ("ERROR" if name in ("boom", "late") else "UNSET")
    assert [event["name"] for event in done["events"]] == (["exception"] if name in ("boom", "late") else [])


def test_an_invalid_parent_is_ignored(packmule: CommandLine, client: Redis) -> None:
    id = packmule.output("enqueue", "call", "shop.add", "a=1")
    client.hset(f"rq:job:{id}", "trace", b"00-\xff-nonsense")
    worked = packmule.run("worker", "--burst", "--processes", "1", "--no-scheduler")
    (done,) = spans(worked.stderr)
    assert done["parent_id"] is None


def test_without_tracing_nothing_is_written(
    server: EmbeddedServer, client: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packmule = CommandLine(tmp_path, environment_in(tmp_path, server.url))
    id = packmule.output("enqueue", "call", "shop.add", "a=1")
    assert client.hget(f"rq:job:{id}", "trace") is None
    monkeypatch.setattr(hooks, "enqueuers", [])
    assert isinstance(sending("a.b", "default"), nullcontext)
