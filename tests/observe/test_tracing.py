"""Traces: one from the enqueue to the job, whichever executor runs it."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
from redis import Redis

from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.jobs import tracing
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
    enqueued = packmule.run("enqueue", "call", f"shop.{name}", *arguments, "--timeout", "1")
    (sent,) = spans(enqueued.stderr)
    worked = packmule.run("worker", "--burst", "--processes", "1", "--no-scheduler")
    (done,) = spans(worked.stderr)
    assert (sent["kind"], done["kind"]) == ("SpanKind.PRODUCER", "SpanKind.CONSUMER")
    assert done["context"]["trace_id"] == sent["context"]["trace_id"]
    assert done["parent_id"] == sent["context"]["span_id"]
    assert done["attributes"] == {
        "messaging.system": "packmule",
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


def test_without_tracing_nothing_is_written(server: EmbeddedServer, client: Redis, tmp_path: Path) -> None:
    packmule = CommandLine(tmp_path, environment_in(tmp_path, server.url))
    id = packmule.output("enqueue", "call", "shop.add", "a=1")
    assert client.hget(f"rq:job:{id}", "trace") is None
    with tracing.sending("a.b", "default") as parent:
        assert parent == ""


def test_a_worker_without_tracing_makes_no_span_and_passes_a_trace_on() -> None:
    trace = pytest.importorskip("opentelemetry.trace")
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
    assert isinstance(tracing.performing("shop.add", "default", "a", 1, ""), nullcontext)
    assert isinstance(tracing.sending("shop.add", "default"), nullcontext)
    parent = f"00-{1:032x}-{2:016x}-01"
    with (
        tracing.performing("shop.add", "default", "a", 1, parent),
        tracing.sending("shop.add", "default") as at,
    ):
        assert at == parent
