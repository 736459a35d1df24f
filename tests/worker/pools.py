"""Pools of real processes for tests, and functions that wait for what they do."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from redis import Redis

from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.jobs import reader
from packmule.jobs.reader import JobInfo
from packmule.tests.fork_server import Forked
from packmule.tests.network import Network

DEADLINE = 60.0


@contextmanager
def pool(
    server: EmbeddedServer | Network, processes: int = 1, stderr: IO[bytes] | None = None, **options: object
) -> Iterator[subprocess.Popen[bytes]]:
    """A running pool, in a session of its own; gone with all its children at the end."""
    command = ["packmule.tests.worker.run_pool", server.url, str(processes)]
    command += [f"{name}={value}" for name, value in options.items()]
    process = Forked(command, start_new_session=True, stderr=stderr)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def logging_pool(
    server: EmbeddedServer, processes: int = 1, **options: object
) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[], str]]]:
    """A running pool, and a function that returns what it and its children have logged."""
    with tempfile.TemporaryFile() as log, pool(server, processes, log, **options) as process:
        yield process, lambda: os.pread(log.fileno(), 1 << 20, 0).decode(errors="replace")


def drained(server: EmbeddedServer, processes: int = 1, **options: object) -> int:
    """Run a pool until the queues are empty; its exit code."""
    with pool(server, processes, burst=1, **options) as process:
        return process.wait(DEADLINE)


def until(condition: Callable[[], object], seconds: float = DEADLINE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def ended(client: Redis, id: str) -> JobInfo:
    return reader.wait(client, id, DEADLINE)


def scripts_a_second(client: Redis) -> float:
    """How many scripts the server is asked to run now."""

    def count() -> int:
        return client.info("commandstats")["cmdstat_evalsha"]["calls"]

    began, before = time.monotonic(), count()
    time.sleep(1.0)  # a span to count in, not a condition
    return (count() - before) / (time.monotonic() - began)
