"""What tests of the worker share."""

from __future__ import annotations

import pytest
from redis import Redis

from packmule.jobs.client import Client


@pytest.fixture
def produce(client: Redis) -> None:
    """Let registered functions enqueue to the shared server."""
    Client(client).make_default()
