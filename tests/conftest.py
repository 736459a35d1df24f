"""What tests share: private real servers, each in a temporary directory of its own, and a client."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import redis

from packmule.coordination.redis.connection import connect
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.jobs.client import Client
from packmule.jobs.input_limits import InputLimits
from packmule.testing import private_server
from packmule.tests import leaks
from packmule.tests.network import Pair, network, replicate
from packmule.worker.order import Strict
from packmule.worker.process.claim import Claims

MIB = 1024 * 1024


def pytest_xdist_auto_num_workers() -> int:
    """Two processes a core, for tests wait more than they compute; each has a server of its own."""
    return 2 * (os.cpu_count() or 1)


def pytest_configure(config: pytest.Config) -> None:
    """Mark what this run starts; xdist's processes inherit the mark."""
    if not hasattr(config, "workerinput"):
        leaks.mark()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail if a process of ours is left once fixtures are torn down and xdist's processes have ended."""
    if hasattr(session.config, "workerinput"):
        return
    if found := leaks.processes_left():
        print("", "The tests left behind:", *found, sep="\n")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session", autouse=True)
def data_seen() -> list[bool]:
    """Whether the checkout has a folder of data: a developer's own, or one that a test has made."""
    return [leaks.DATA_HERE.exists()]


@pytest.fixture(autouse=True)
def stays_out_of_the_checkout(data_seen: list[bool]) -> Iterator[None]:
    """Fail the test that starts a server in the checkout, and one of each of xdist's other processes."""
    yield
    was_there, data_seen[0] = data_seen[0], leaks.DATA_HERE.exists()
    assert was_there or not data_seen[0], f"{leaks.DATA_HERE}: not the test's own folder"


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedServer]:
    """The server that all tests of a run share; for one that may be harmed, take `spare_server`."""
    with private_server() as shared:
        yield shared


@pytest.fixture
def client(server: EmbeddedServer) -> Iterator[redis.Redis]:
    """A client of the shared server, which is empty when the test begins."""
    with connect(None, server.data_dir) as connected:
        # Workers of the test before, killed a moment ago, may still be on their way out and take jobs.
        for other in connected.client_list():
            if other["name"].startswith("packmule-wait:"):
                connected.client_kill_filter(_id=other["id"])
        connected.execute_command("FLUSHALL", "SYNC")  # what was freed later would count as this test's
        yield connected


@pytest.fixture
def spare_server() -> Iterator[Callable[[], EmbeddedServer]]:
    """Each call starts a further private server, for this test alone."""
    with ExitStack() as started:
        yield lambda: started.enter_context(private_server())


@pytest.fixture
def pair(spare_server: Callable[[], EmbeddedServer]) -> Iterator[Pair]:
    """A primary and its replica, private to this test."""
    first, second = spare_server(), spare_server()
    replicate(first, second)
    with network(first) as name:
        yield Pair(first, second, name)


@pytest.fixture
def produce(client: redis.Redis) -> None:
    """Let registered functions enqueue to the shared server."""
    Client(client).make_default()


@pytest.fixture
def claims(client: redis.Redis) -> Claims:
    """What claims jobs for the worker `w1`, which no process is."""
    return Claims(client, "w1", Strict(["high", "default", "low"]))


@pytest.fixture
def limits() -> InputLimits:
    """The bounds that ready-made jobs get in tests."""
    return InputLimits(file_bytes=64 * MIB, attachment_bytes=5 * MIB, pixels=50_000_000)
