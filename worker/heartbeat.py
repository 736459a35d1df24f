"""Heartbeats: few round trips, usually one, renew the leases of all workers of a pool."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Mapping

from redis import Redis

from packmule.coordination.redis.backoff import REDIS_ERRORS, is_transient, outage
from packmule.coordination.redis.scripts import Script
from packmule.jobs import keys, wire
from packmule.worker.deadlines import LOOK, Deadlines
from packmule.worker.kernel import resident_memory
from packmule.worker.scoreboard import Scoreboard
from packmule.worker.started import Marks

INTERVAL = 1.0
"""Seconds between heartbeats. A lease outlives a network cut of 10 s and the tries on either side of it."""

RETRY_INTERVAL = 0.3
"""Seconds until a heartbeat that failed is tried again."""

WORKERS_A_CALL = 100
"""Workers whose leases one call renews."""

REGISTRATION_INTERVAL = 30.0
"""Seconds between renewals of RQ's registration; a change of the running job is written at the next beat.

The memory that the process uses is written with either."""

LOOK_INTERVAL = 0.1

log = logging.getLogger("packmule.worker")
_renew = Script("worker", "renew")


class Heartbeat:
    """Renews the leases of `workers`, a mapping of names to scoreboards that may change meanwhile."""

    def __init__(self, client: Redis, workers: Mapping[str, Scoreboard]) -> None:
        self.client = client
        self.workers = workers
        self._written: dict[str, tuple[str, float]] = {}

    def beat(self) -> None:
        """Renew all leases, or find out that the server answers. Raises what redis-py does."""
        living = {name: scoreboard for name, scoreboard in self.workers.items() if scoreboard.is_registered}
        self._written = {name: self._written[name] for name in living if name in self._written}
        each = list(living.items())
        for first in range(0, max(1, len(each)), WORKERS_A_CALL):
            self._renew(dict(each[first : first + WORKERS_A_CALL]))

    def _renew(self, living: Mapping[str, Scoreboard]) -> None:
        now = time.monotonic()
        written: dict[str, tuple[str, float]] = {}
        news: list[str] = []
        for name, scoreboard in living.items():
            running = scoreboard.read()
            job = running[0].id if running else ""
            last, written_at = self._written.get(name, (None, 0.0))
            if job != last or now - written_at >= REGISTRATION_INTERVAL:
                written[name] = job, now
                news += keys.worker_key(name), job, str(resident_memory(scoreboard.pid or None))
        args = [keys.LEASE_SECONDS, keys.WORKER_TTL, wire.time_text(time.time()), len(living), *living, *news]
        _renew(self.client, [keys.LEASES], args)
        self._written |= written


class HeartbeatThread:
    """Beats in a thread, for a worker without a pool, and makes the worker check its own deadlines.

    It calls `maintain` before each beat, first when it is made. A job that keeps the interpreter's lock
    delays all of these.
    """

    def __init__(self, heartbeat: Heartbeat, maintain: Callable[[], object]) -> None:
        self._heartbeat = heartbeat
        self._maintain = maintain
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread, and wait for its end."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        deadlines = Deadlines()
        marks = Marks(self._heartbeat.client)
        ((name, scoreboard),) = self._heartbeat.workers.items()
        next_beat = 0.0
        while not self._stopped.wait(LOOK_INTERVAL if next_beat else 0):
            seen_at, running = time.monotonic(), scoreboard.read()
            if deadlines.tell(running):
                signal.pthread_kill(threading.main_thread().ident or 0, LOOK)
            try:
                marks.mark(name, running, seen_at)
                if time.monotonic() < next_beat:
                    continue
                next_beat = time.monotonic() + RETRY_INTERVAL
                self._heartbeat.beat()
                outage.end()
                next_beat = time.monotonic() + INTERVAL
                self._maintain()
            except Exception as error:  # the lease must not end because of one job
                if isinstance(error, REDIS_ERRORS) and is_transient(error):
                    outage.begin(error)
                else:
                    log.warning("no heartbeat: %s", error)
