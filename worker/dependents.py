"""Dependents: the jobs that waited for a job are enqueued once it has ended, and the nodes of flows."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import cast

from redis import Redis
from redis.exceptions import RedisError, ResponseError

from packmule.coordination.redis.backoff import is_transient
from packmule.coordination.redis.replies import as_text
from packmule.coordination.redis.scripts import Script
from packmule.jobs import keys, wire
from packmule.jobs.batch import NESTED

FORGOTTEN_SECONDS = 10.0
"""A worker that has not enqueued an ended job's dependents after this long is dead."""

PARENTS_A_CALL = 10
DEPENDENTS_A_CALL = 100

LONGEST = 0.2
"""Seconds that one ended job takes of its worker, or of a pool; what is left comes later."""

log = logging.getLogger("packmule.worker")
_enqueue = Script("worker", "enqueue_dependents")
_forgotten = Script("worker", "forgotten")
_advance = Script("jobs", "advance_flow")


class Dependents:
    """Enqueues the jobs that waited for others; doing it twice does no harm."""

    def __init__(self, client: Redis) -> None:
        self.client = client
        self._cursors: dict[bytes, int] = {}
        """How far it came with the dependents of a job that has very many."""

    def enqueue_of(self, ids: Sequence[str], flows: Sequence[str] = ()) -> None:
        """Enqueue the jobs that waited for these, and go on with `flows`.

        Log why that fails, for a pool tries again.
        """
        for id in ids:
            try:
                self._enqueue(id.encode())
            except RedisError as error:
                log.warning("job %s: its dependents wait for a pool: %s", id, error)
        for flow in flows:
            try:
                self._advance(flow)
            except RedisError as error:
                log.warning("flow %s: its nodes wait for a pool: %s", flow, error)

    def enqueue_forgotten(self) -> int:
        """Enqueue the dependents of jobs whose worker died after acknowledging them; how many jobs.

        Raises what redis-py does while Redis is unavailable.
        """
        forgotten: list[bytes] = _forgotten(self.client, [keys.PARENTS], [PARENTS_A_CALL, FORGOTTEN_SECONDS])
        self._cursors = {name: self._cursors[name] for name in forgotten if name in self._cursors}
        for name in forgotten:
            try:
                if name.startswith(NESTED.encode()):
                    self._advance(as_text(name).removeprefix(NESTED))
                else:
                    self._enqueue(name)
            except RedisError as error:
                if is_transient(error):
                    raise
                log.error("job %s: its dependents can't be enqueued: %s", as_text(name)[:200], error)
                self.client.zrem(keys.PARENTS, name)
        return len(forgotten)

    def _advance(self, flow: str) -> None:
        """Let changes in a flow reach the nodes behind."""
        ends_at = time.monotonic() + LONGEST
        key_names = [keys.batch_key(flow), keys.PARENTS]
        while _advance(self.client, key_names, [flow, wire.time_text(time.time())]):
            if time.monotonic() > ends_at:
                self.client.zadd(
                    keys.PARENTS, {f"{NESTED}{flow}": 0}, xx=True
                )  # so that a pool goes on at once
                return

    def _enqueue(self, name: bytes) -> None:
        """Look at the dependents of the job `name`, page by page."""
        ends_at = time.monotonic() + LONGEST
        key = keys.job_key("").encode() + name + b":dependents"
        cursor = self._cursors.pop(name, 0)
        while True:
            cursor, page = self._page(key, cursor)
            last, among = int(cursor == 0), b"0"
            while True:
                args = [name, wire.time_text(time.time()), last, among, *page]
                looked_at, _, among = _enqueue(self.client, [key, keys.PARENTS], args)
                page = page[looked_at:]
                if not page:
                    break
            if cursor == 0:
                return
            if time.monotonic() > ends_at:
                self._cursors[name] = cursor
                self.client.zadd(keys.PARENTS, {name: 0}, xx=True)  # so that a pool goes on at once
                return

    def _page(self, key: bytes, cursor: int) -> tuple[int, list[bytes]]:
        try:
            following, page = self.client.sscan(key, cursor, count=DEPENDENTS_A_CALL)
        except ResponseError as error:
            if is_transient(error):
                raise
            return 0, []  # a key of another type, which the script sets aside
        return int(following), list(cast(Sequence[bytes], page))
