"""Heartbeats: one round trip renews the leases and RQ registrations of all workers of a process."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping

from redis import Redis
from redis.exceptions import RedisError

from coordination import counters
from jobs import wire
from worker.claim import LEASE
from worker.slot import Slot

INTERVAL = 3.0
"""Seconds between heartbeats: a lease outlives two that are lost."""

REGISTRATION_TTL = 480
"""Seconds after which RQ forgets a worker that gives no sign: RQ's own default."""

log = logging.getLogger("packmule.worker")


class Heartbeat:
    """Renews the leases of `workers`, a mapping of names to slots that may change while it beats."""

    def __init__(self, client: Redis, workers: Mapping[str, Slot]) -> None:
        self.client = client
        self.workers = workers

    def beat(self) -> None:
        """Renew all of them for another lease. Raises what redis-py does when the server is away."""
        seconds, microseconds = self.client.time()
        now = seconds + microseconds / 1e6
        with self.client.pipeline(transaction=False) as pipeline:
            for name, slot in self.workers.items():
                if not slot.is_open:
                    continue
                key = wire.worker_key(name)
                performing = slot.read()
                fields: counters.Values = {
                    "last_heartbeat": wire.time_text(time.time()),
                    "state": "busy" if performing else "idle",
                }
                if performing:
                    fields["current_job"] = performing.id
                else:
                    pipeline.hdel(key, "current_job")
                pipeline.hset(key, mapping=fields)
                pipeline.expire(key, REGISTRATION_TTL)
                pipeline.zadd(wire.LEASES, {name: now + LEASE})
            pipeline.execute()


class HeartbeatThread:
    """Beats in a thread, for a worker without a pool. A job that holds the interpreter's lock holds it up."""

    def __init__(self, heartbeat: Heartbeat) -> None:
        self._heartbeat = heartbeat
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it and wait for the end."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                self._heartbeat.beat()
            except RedisError as error:
                log.warning("no heartbeat: %s", error)
            if self._stopped.wait(INTERVAL):
                return
