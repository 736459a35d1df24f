"""pytest's fixtures `packmule_inline`, `packmule_queue` and `packmule_server`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from packmule import testing

if TYPE_CHECKING:
    from packmule.coordination.redis.embedded_server import EmbeddedServer
    from packmule.jobs.client import Client
    from packmule.testing.local import LocalClient


@pytest.fixture
def packmule_inline() -> Iterator[LocalClient]:
    """Perform each job in the test's process as soon as it is enqueued (see `packmule.testing.inline`)."""
    with testing.inline() as client:
        yield client


@pytest.fixture
def packmule_queue() -> Iterator[LocalClient]:
    """Collect what the test enqueues: `assert_enqueued`, `refute_enqueued` and `drain` look at it."""
    with testing.queue() as client:
        yield client


@pytest.fixture(scope="session")
def _packmule_private_server() -> Iterator[EmbeddedServer]:
    with testing.private_server() as server:
        yield server


@pytest.fixture
def packmule_server(
    _packmule_private_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Client]:
    """A client of a real server that is empty when the test begins, for this process and its children.

    The tests of one process share the server, which is private to them and gone when they have ended.
    """
    monkeypatch.setenv("PACKMULE_REDIS_URL", _packmule_private_server.url)
    with testing.empty(_packmule_private_server) as client:
        yield client
