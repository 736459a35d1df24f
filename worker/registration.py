"""Registration: the entries by which RQ's readers, such as `rq info`, know a worker process."""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from redis import Redis
from redis.exceptions import RedisError
from rq.version import VERSION

from packmule.jobs import keys, registry, wire

DEATH_SECONDS = 60
"""How long RQ's readers can still see that a worker has left."""

log = logging.getLogger("packmule.worker")


class Registrar(Protocol):
    """What a worker process calls when it begins, when it was forgotten meanwhile, and when it leaves."""

    def enter(self) -> None:
        """Register. Raises what redis-py does."""

    def enter_again(self) -> None:
        """Register after a pool took the worker for dead, or the server lost its data; never raises."""

    def leave(self) -> None:
        """Sign off. Raises what redis-py does."""


class Registration:
    """Registers the worker `name`, which serves `queues`, in the form that RQ's readers know.

    `release` names the code that it runs; errors of its jobs say so. `capacity` says how many `threads` and
    `tasks` it performs at once.
    """

    def __init__(
        self,
        client: Redis,
        name: str,
        queues: Sequence[str],
        release: str = "",
        capacity: Mapping[str, int] | None = None,
    ) -> None:
        self.client = client
        self.name = name
        self.queues = queues
        self.release = release
        self.capacity = capacity or {}
        self.key = keys.worker_key(name)

    def enter(self) -> None:
        """Register. Raises what redis-py does."""
        now = wire.time_text(time.time())
        fields: dict[Any, Any] = {
            "birth": now,
            "last_heartbeat": now,
            "queues": ",".join(self.queues),
            "pid": os.getpid(),
            "hostname": socket.gethostname(),
            "ip_address": self.client.client_info().get("addr", "unknown"),
            "version": VERSION,
            "python_version": sys.version,
            "state": "idle",
            "jobs": registry.digest(),
            **({"release": self.release} if self.release else {}),
            **self.capacity,
        }
        with self.client.pipeline() as pipeline:
            pipeline.delete(self.key)
            pipeline.hset(self.key, mapping=fields)
            for each in self._sets():
                pipeline.sadd(each, self.key)
            pipeline.expire(self.key, keys.WORKER_TTL)
            pipeline.execute()

    def enter_again(self) -> None:
        """Register after a pool took the worker for dead, or the server lost its data; never raises."""
        try:
            self.enter()
        except RedisError as error:
            log.warning("worker %s could not register again: %s", self.name, error)

    def leave(self) -> None:
        """Sign off. Raises what redis-py does."""
        with self.client.pipeline() as pipeline:
            for each in self._sets():
                pipeline.srem(each, self.key)
            pipeline.hset(self.key, mapping={"death": wire.time_text(time.time()), "state": "idle"})
            pipeline.hdel(self.key, "current_job")
            pipeline.expire(self.key, DEATH_SECONDS)
            pipeline.execute()

    def _sets(self) -> list[str]:
        return [keys.WORKERS, *map(keys.workers_key, self.queues)]
