"""Repair: find what a crash, a lost key or a deletion by hand left without an owner, and let it go on."""

from __future__ import annotations

import time

from redis import Redis

from packmule.coordination.redis.replies import as_text
from packmule.coordination.redis.scripts import Script
from packmule.jobs import keys
from packmule.scheduler.leader import require_leading
from packmule.scheduler.maintenance.queue_scan import LONGEST_ROUND, QueueScan

KEYS_A_CALL = 1000
"""Keys that one call checks: few enough that it occupies the server for about a millisecond."""

_repair_groups = Script("scheduler.maintenance", "repair_groups")
_repair_orphans = Script("scheduler.maintenance", "repair_orphans")


class GroupRepair:
    """Unblocks groups of waiting jobs whose place in the queue was lost.

    Without it, jobs could wait forever after a list was emptied by hand, a record was deleted, or a slot's
    holder vanished with its claims. Running it at any time, or several at once, does no harm.
    """

    def __init__(self, client: Redis) -> None:
        self.client = client
        self._scan = QueueScan(client)

    def repair(self, term: str = "") -> bool:
        """Check groups for a while; return whether any exist. Raises `NotLeading` if `term` is over."""
        seen = 0

        def check(queue: str, cursor: str) -> str:
            nonlocal seen
            reply = _repair_groups(self.client, [keys.groups_key(queue)], [queue, cursor, term])
            require_leading(reply)
            seen += int(reply[1])
            return as_text(reply[0])

        self._scan.run(check)
        return seen > 0


class OrphanRepair:
    """Scans all keys of `client`'s server, round after round, for what no longer has an owner."""

    def __init__(self, client: Redis) -> None:
        self.client = client
        self._cursor = "0"

    def repair(self, term: str = "") -> int:
        """Check keys for a while, or to the end of the round; return how many were repaired.

        Claims without a lease get one that ends, so that they are rescued. Slots whose holder is gone are
        freed. Groups that nothing would unblock go on. Records of workers get an expiry. Raises `NotLeading`
        if the leader's `term` is over.
        """
        repaired, ends_at = 0, time.monotonic() + LONGEST_ROUND
        while True:
            args = [self._cursor, KEYS_A_CALL, term, keys.LEASE_SECONDS, keys.WORKER_TTL]
            reply = _repair_orphans(self.client, [keys.LEASES], args)
            require_leading(reply)
            self._cursor = as_text(reply[0])
            repaired += int(reply[1])
            if self._cursor == "0" or time.monotonic() > ends_at:
                return repaired
