"""A server that goes away after the first connect: whoever uses it meets `packmule.Unavailable`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

import packmule
from packmule.config import Settings
from packmule.jobs.batch import Batch
from packmule.jobs.client import Client
from packmule.jobs.handle import JobHandle
from packmule.tests.jobs import sample_jobs
from packmule.tests.network import network

USES: dict[str, Callable[[Client, JobHandle], object]] = {
    "enqueue": lambda client, job: client.enqueue(sample_jobs.noop),
    "enqueue durably": lambda client, job: client.enqueue(sample_jobs.noop.options(durable=True)),
    "aenqueue": lambda client, job: asyncio.run(client.aenqueue(sample_jobs.noop)),
    "a batch": lambda client, job: Batch.create("b", client=client),
    "status": lambda client, job: job.status,
    "result": lambda client, job: job.result(timeout=60),
    "retry": lambda client, job: job.retry(),
    "cancel": lambda client, job: job.cancel(),
}


@pytest.mark.parametrize("use", USES)
def test_whatever_meets_a_server_that_is_gone_is_told_so(spare_server, use):
    server = spare_server()
    with network(server) as name, Client(Settings(redis_url=name.url)) as client:
        job = client.enqueue(sample_jobs.noop)
        server.stop()
        with pytest.raises(packmule.Unavailable) as gone:
            USES[use](client, job)
        assert gone.value.exit_code == 3


def test_an_enqueue_by_a_client_of_the_users_own_is_told_so_too(spare_server):
    server = spare_server()
    with Redis.from_url(server.url, retry=Retry(NoBackoff(), 0)) as own:
        client = Client(own)
        client.enqueue(sample_jobs.noop)
        server.stop()
        with pytest.raises(packmule.Unavailable):
            client.enqueue(sample_jobs.noop)
        with pytest.raises(packmule.Unavailable):
            client.enqueue(sample_jobs.noop.options(durable=True))
