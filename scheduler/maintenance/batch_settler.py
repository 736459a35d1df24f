"""Batch settler: count the jobs of batches that ended where nobody counted them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress

from redis import Redis

from packmule.coordination.redis.replies import as_text
from packmule.coordination.redis.scripts import Script
from packmule.jobs import keys, wire
from packmule.jobs.batch import Batch
from packmule.jobs.batch_state import NoSuchBatch
from packmule.scheduler.leader import require_leading
from packmule.scheduler.maintenance.queue_scan import LONGEST_ROUND

JOBS_A_CALL = 200
"""Jobs that one call looks at: few enough that it occupies the server for well under a millisecond."""

BATCHES_A_TRIP = 500

ABANDONED_SECONDS = 600.0
"""A flow that was not sent whole for so long is canceled: its producer has died, and it would never begin."""

_settle = Script("scheduler.maintenance", "settle_batch")
_list = Script("scheduler.maintenance", "list_batches")


class BatchSettler:
    """Goes through the batches of `client`'s server that have not ended, round after round.

    RQ's code cancels, deletes and performs jobs without counting them in their batches, which would wait for
    them for ever. A job whose record is gone counts as canceled. A flow whose
    producer died amidst sending it is canceled. Running this at any time, or several at once, does no harm.
    """

    def __init__(self, client: Redis) -> None:
        self.client = client
        self._ahead: deque[tuple[str, str]] = deque()

    def settle(self, term: str = "") -> bool:
        """Count for a while; return whether some batches have not ended.

        Raises `NotLeading` if the leader's `term` is over.
        """
        ends_at = time.monotonic() + LONGEST_ROUND
        if not self._ahead:
            self._ahead.extend((batch, "0") for batch in self._open())
        has_some = bool(self._ahead)
        while self._ahead and time.monotonic() < ends_at:
            batch, cursor = self._ahead.popleft()
            key = keys.batch_key(batch)
            args = [batch, cursor, JOBS_A_CALL, wire.time_text(time.time()), term]
            reply = _settle(self.client, [key, f"{key}:jobs"], args)
            require_leading(reply)
            cursor = as_text(reply)
            if cursor != "0":
                self._ahead.appendleft((batch, cursor))
        return has_some

    def _is_abandoned(self, created: bytes) -> bool:
        """Whether a flow that was not sent whole was begun so long ago that its producer must have died."""
        seconds, _ = self.client.time()
        try:
            return float(created) < seconds - ABANDONED_SECONDS
        except ValueError:
            return True

    def _open(self) -> Iterator[str]:
        """The ids of the batches that have not ended."""
        first = 0
        while True:
            last = first + BATCHES_A_TRIP - 1
            found = [as_text(id) for id in _list(self.client, [keys.BATCHES], [first, last])]
            with self.client.pipeline(transaction=False) as pipeline:
                for id in found:
                    pipeline.hmget(keys.batch_key(id), "created", "ended", "start", "sealed")
                states = pipeline.execute(raise_on_error=False)
            for id, state in zip(found, states, strict=True):
                if isinstance(state, list) and state[0] is not None and state[1] is None:
                    if state[2] is not None and state[3] is None and self._is_abandoned(state[0]):
                        with suppress(NoSuchBatch):  # somebody has just deleted it
                            Batch(self.client, id).cancel()
                    yield id
            if len(found) < BATCHES_A_TRIP:
                return
            first += BATCHES_A_TRIP
