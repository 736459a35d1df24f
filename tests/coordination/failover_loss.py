"""What a failover loses: primaries are killed under producers, and their replicas take over.

    python tests/coordination/failover_loss.py [failovers]

The replica is 20 ms away. For each kind of enqueue it prints how many jobs were acknowledged, and how many of
these the new primary doesn't have.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

import redis
from redis import Redis

import packmule
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.jobs import keys
from packmule.jobs.client import Client
from packmule.testing import private_server
from packmule.tests.jobs import sample_jobs
from packmule.tests.network import network, promote, replicate

PRODUCERS = 4
SECONDS = 1.0
AWAY = 0.01
"""Seconds from the primary to its replica, one way."""


@dataclass
class Loss:
    """How many jobs were acknowledged and lost, in how many seconds."""

    acknowledged: int = 0
    lost: int = 0
    seconds: float = 0.0


def fail_over(options: dict[str, bool], least_replicas: int, loss: Loss) -> None:
    """Let producers enqueue, kill the primary, and add what its replica lacks to `loss`."""
    with private_server() as first, private_server() as second, network(first, AWAY) as link:
        replicate(first, second, through=link)
        with Redis.from_url(first.url) as client:
            client.config_set("min-replicas-to-write", least_replicas)
        acknowledged: list[str] = []
        threads = [
            threading.Thread(target=produce, args=(first, options, acknowledged)) for _ in range(PRODUCERS)
        ]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        time.sleep(SECONDS)
        pid = first.pid()
        assert pid
        os.kill(pid, signal.SIGKILL)
        for thread in threads:
            thread.join()
        loss.seconds += time.monotonic() - began
        promote(second)
        with Redis.from_url(second.url) as client:
            there = {id.decode() for id in client.lrange(keys.queue_key("default"), 0, -1)}
        loss.acknowledged += len(acknowledged)
        loss.lost += len(set(acknowledged) - there)


def produce(server: EmbeddedServer, options: dict[str, bool], acknowledged: list[str]) -> None:
    """Enqueue until the server is gone, noting what it has acknowledged."""
    once = Redis(unix_socket_path=str(server.socket_path), retry=None)
    with once, suppress(packmule.Unavailable, redis.RedisError):
        producer = Client(once)
        while True:
            acknowledged.append(producer.enqueue(sample_jobs.noop.options(**options)))


def run(failovers: int) -> dict[str, Loss]:
    """The losses by the kind of enqueue."""
    kinds: dict[str, tuple[dict[str, bool], int]] = {
        "plain": ({}, 0),
        "plain, min-replicas-to-write 1": ({}, 1),
        "durable=True": ({"durable": True}, 0),
    }
    losses = {}
    for kind, (options, least) in kinds.items():
        losses[kind] = Loss()
        for _ in range(failovers):
            fail_over(options, least, losses[kind])
    return losses


if __name__ == "__main__":
    for kind, loss in run(int(sys.argv[1]) if len(sys.argv) > 1 else 5).items():
        rate = loss.acknowledged / loss.seconds
        print(f"{kind:32} {loss.acknowledged:7,} acknowledged, {loss.lost:5,} lost, {rate:7,.0f} a second")
