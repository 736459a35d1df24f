"""Redis Cluster, and servers that behave as one: whoever meets one says so in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis import Redis

from packmule.coordination.locks.redlock import Redlock
from packmule.coordination.redis.connection import connect, lock_clients
from packmule.coordination.redis.fitness import UnfitServer
from packmule.jobs.client import Client
from packmule.tests.command_line import CommandLine, complaint, environment_in
from packmule.tests.coordination.test_connection import NOWHERE, valkey
from packmule.tests.jobs import sample_jobs


@pytest.fixture(params=["all of the slots", "no slots"])
def cluster(request, tmp_path: Path) -> Redis:
    """A client of a node in cluster mode, which has all slots or none."""
    node = valkey(tmp_path, "cluster-enabled yes\nappendonly yes")
    port = node.__enter__()
    client = Redis(port=port)
    request.addfinalizer(lambda: (client.close(), node.__exit__(None, None, None)))
    if request.param == "all of the slots":
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16_383)
    return client


def url_of(client: Redis) -> str:
    return f"redis://127.0.0.1:{client.connection_pool.connection_kwargs['port']}"


def test_a_connection_is_refused(cluster):
    with pytest.raises(UnfitServer, match="the server runs in Redis Cluster mode") as refused:
        connect(url_of(cluster), NOWHERE)
    assert refused.value.exit_code == 3


def test_a_producer_with_a_client_of_its_own_is_refused(cluster):
    with pytest.raises(UnfitServer, match="use a server outside of cluster mode"):
        Client(cluster).enqueue(sample_jobs.noop)


def test_a_lock_node_has_no_vote(cluster):
    locks = Redlock(lock_clients([url_of(cluster)], None, NOWHERE), longest_ttl=1.0)
    assert "it runs in Redis Cluster mode" in str(locks.faults())
    locks.close()


@pytest.mark.parametrize(
    "command", [("worker",), ("scheduler",), ("enqueue", "call", "shop.add", "a=1"), ("status",)]
)
def test_commands_end_with_one_line(cluster, tmp_path, command):
    packmule = CommandLine(tmp_path, environment_in(tmp_path, url_of(cluster)))
    said = complaint(packmule.run(*command), 3)
    assert "Redis Cluster mode" in said


def test_check_shows_it_and_the_rest(cluster, tmp_path):
    packmule = CommandLine(tmp_path, environment_in(tmp_path, url_of(cluster)))
    checked = packmule.run("check")
    assert checked.returncode == 3
    assert "Redis Cluster mode" in " ".join(checked.stdout.split())
    assert "ok, valkey" not in checked.stdout
