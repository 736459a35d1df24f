"""Mending: groups of waiting jobs go on though the job that stood for them in their queue's list was lost."""

from __future__ import annotations

from redis import Redis

from packmule.coordination.redis.scripts import Script
from packmule.jobs import wire
from packmule.scheduler.leader import FENCE, refuse
from packmule.scheduler.maintenance.queue_scan import Walk

_mend = Script("scheduler.maintenance", "repair_groups", after=(*wire.GATES, *FENCE))


class Mender:
    """Looks after the groups of all queues. Done at any time and by several it does no harm.

    A list that was emptied by hand, a record that was deleted, or a slot whose holder vanished with its
    claims would otherwise leave jobs waiting for nobody.
    """

    def __init__(self, client: Redis) -> None:
        self.client = client
        self._walk = Walk(client)

    def mend(self, term: str = "") -> bool:
        """Go on for a while; whether groups were seen. Raises `Overtaken` if the leader's `term` is over."""
        seen = 0

        def step(queue: str, cursor: str) -> str:
            nonlocal seen
            reply = _mend(self.client, [wire.groups_key(queue)], [queue, cursor, term])
            refuse(reply)
            seen += int(reply[1])
            return "" if reply[0] == b"0" else wire.text(reply[0])

        self._walk.go(step)
        return seen > 0
