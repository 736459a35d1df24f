"""What tests of the worker share."""

from __future__ import annotations

import pytest
from redis import Redis

from packmule.jobs import registry
from packmule.jobs.client import Producer


@pytest.fixture
def produce(client: Redis) -> None:
    """Let registered functions enqueue to the shared server."""
    registry.use(Producer(client).enqueue)
