"""Sweeping: what a crash, a lost key or a hand has left without an owner is found and goes on."""

from __future__ import annotations

import time

from redis import Redis

from packmule.coordination.redis.scripts import Script
from packmule.jobs import wire
from packmule.scheduler.leader import FENCE, refuse
from packmule.scheduler.maintenance.queue_scan import LONGEST_ROUND

KEYS_A_CALL = 1000
"""Few enough that one call holds the server for a millisecond or so."""

LEASE = 10.0
"""Seconds after which a worker that has claims but no lease counts as dead, unless it renews it by then."""

_sweep = Script("scheduler.maintenance", "repair_orphans", after=(*wire.GROUPS, *FENCE))


class Sweeper:
    """Goes round the keys of `client`'s server, again and again."""

    def __init__(self, client: Redis) -> None:
        self.client = client
        self._cursor = "0"

    def sweep(self, term: str = "") -> int:
        """Go on for a while, or to the end of the round; how many keys were mended.

        Claims without a lease are given one that ends, so that they are rescued; slots whose holder is gone
        are free again; jobs that wait behind none go on; records of workers end. Raises `Overtaken` if the
        leader's `term` is over.
        """
        mended, ends_at = 0, time.monotonic() + LONGEST_ROUND
        while True:
            reply = _sweep(self.client, [wire.LEASES], [self._cursor, KEYS_A_CALL, term, LEASE])
            refuse(reply)
            self._cursor = wire.text(reply[0])
            mended += int(reply[1])
            if self._cursor == "0" or time.monotonic() > ends_at:
                return mended
