"""The HTTP API on one process: jobs enqueued a second, one by one and many at once, and how long each takes.

    python benchmarks/api.py [seconds]

`packmule dashboard` serves a private server, and this process asks over kept connections, with a token whose
rate is counted. "CPU" is the dashboard's processor time for a request. Beside it, a Python client enqueues
the same job without HTTP.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bench_jobs
import msgspec
from harness import arguments, client_of, machine, rate_in, table
from redis import Redis

from packmule.config import child_environment
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.coordination.sessions.tokens import Tokens
from packmule.jobs.client import Client
from packmule.jobs.read_tokens import REALM
from packmule.testing import private_server
from packmule.tests.command_line import free_port

MANY = 100
TICKS = os.sysconf("SC_CLK_TCK")


@contextmanager
def dashboard(server: EmbeddedServer) -> Iterator[tuple[int, int]]:
    """A served dashboard: its port and process."""
    port = free_port()
    environment = child_environment(
        PACKMULE_REDIS_URL=server.url,
        PACKMULE_MODULES="bench_jobs",
        PACKMULE_API_RATE="1000000/m",
        PYTHONPATH=str(Path(__file__).parent),
    )
    command = [sys.executable, "-m", "packmule", "dashboard", "--port", str(port)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        for line in process.stderr:
            if "dashboard is on" in line:
                break
        try:
            yield port, process.pid
        finally:
            process.terminate()
            process.wait(30)


def cpu(pid: int) -> float:
    """The processor time of a process in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


async def ask(port: int, request: bytes, until: float, spans: list[float]) -> None:
    """Send `request` again and again on one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.perf_counter() < until:
        began = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        assert b" 201 " in head[:20], head
        spans.append(time.perf_counter() - began)
    writer.close()


async def load(port: int, request: bytes, connections: int, seconds: float) -> list[float]:
    """How long each request took, from so many connections at once."""
    spans: list[float] = []
    until = time.perf_counter() + seconds
    await asyncio.gather(*(ask(port, request, until, spans) for _ in range(connections)))
    return spans


def request_of(token: str, path: str, body: Any, more: str = "") -> bytes:
    content = msgspec.json.encode(body)
    head = (
        f"POST /api/v1{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\n{more}Content-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def measured(
    name: str, client: Redis, at: tuple[int, int], request: bytes, how: tuple[int, int, float]
) -> Any:
    """A row of the table; `how` are connections, jobs a request and seconds."""
    connections, jobs, seconds = how
    port, pid = at
    client.delete("rq:queue:default")
    before = cpu(pid)
    spans = sorted(asyncio.run(load(port, request, connections, seconds)))
    spent = cpu(pid) - before
    return [
        name,
        str(connections),
        f"{len(spans) * jobs / seconds:,.0f}",
        f"{statistics.median(spans) * 1000:.1f}",
        f"{spans[int(len(spans) * 0.99)] * 1000:.1f}",
        f"{spent / len(spans) * 1_000_000:,.0f}",
    ]


def main() -> None:
    (seconds,) = arguments(5.0)
    name = bench_jobs.noop.job.name
    with private_server() as server, client_of(server) as client, dashboard(server) as at:
        print(machine("starlette", "uvicorn", "httptools", "uvloop", client=client))
        token = Tokens(client, REALM).add("bench", ["enqueue"])
        one = request_of(token, "/jobs", {"job": name})
        many = request_of(token, "/jobs/many", {"job": name, "calls": [[]] * MANY})
        rows = [measured("one job a request", client, at, one, (n, 1, seconds)) for n in (1, 8, 32, 64)]
        rows += [measured(f"{MANY} jobs a request", client, at, many, (n, MANY, seconds)) for n in (1, 8)]
        jobs = Client(client)
        direct = rate_in(seconds, lambda: jobs.enqueue(bench_jobs.noop))
        rows.append(["Python's client, without HTTP", "1", f"{direct:,.0f}", f"{1000 / direct:.1f}", "", ""])
        table(["enqueue", "connections", "jobs/s", "p50 ms", "p99 ms", "CPU us"], rows)


if __name__ == "__main__":
    main()
