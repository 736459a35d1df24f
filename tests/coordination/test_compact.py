"""The settings by which a server keeps jobs in little memory."""

from __future__ import annotations

import pytest
from redis import Redis

from packmule import Client
from packmule.coordination.redis import compact
from packmule.tests.worker import pool_jobs
from packmule.tests.worker.pools import ended, pool

FIRST, SECOND = compact.SETTINGS


@pytest.fixture
def config(client):
    """Change a setting of the server, until the test has ended."""
    yield client.config_set
    for name, value in compact.SETTINGS.items():
        client.config_set(name, value)


def test_the_embedded_server_needs_no_advice(client):
    assert compact.advice(client) == []


@pytest.mark.parametrize(("name", "value"), [(FIRST, 0), (FIRST, 4096), (SECOND, 64)])
def test_a_setting_that_costs_memory_is_named_with_its_cure(client, config, name, value):
    config(name, value)
    assert compact.advice(client) == [f"CONFIG SET {name} {compact.SETTINGS[name]}"]


def test_a_server_that_hides_its_settings_gets_no_advice(client, server, config):
    config(FIRST, 0)
    client.acl_setuser("guest", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-config"])
    try:
        with Redis(unix_socket_path=str(server.socket_path), username="guest", password="any") as guest:
            assert compact.advice(guest) == []
    finally:
        client.acl_deluser("guest")


def test_a_finished_job_takes_little_memory(client, server, tmp_path):
    Client(client).make_default()
    with pool(server):
        # Its text is longer than what a hash keeps in a list by default.
        id = pool_jobs.note.enqueue(str(tmp_path / "notes"), "x" * 300)
        assert ended(client, id).status == "finished"
    assert client.memory_usage(f"rq:results:{id}") < 1500
    assert client.object("encoding", f"rq:job:{id}") == b"listpack"
