"""Mending: groups of waiting jobs go on though the job that stood for them in their queue's list was lost."""

from __future__ import annotations

from redis import Redis

from coordination.scripts import Script
from jobs import wire
from scheduler.leader import FENCE, refuse

_mend = Script("scheduler", "mend_groups", after=(*wire.GATES, *FENCE))


def mend(client: Redis, term: str = "") -> None:
    """Look at the groups of all queues, a hundred a call. Done at any time, it does no harm.

    A list that was emptied by hand, a record that was deleted, or a slot whose holder vanished with its
    claims would otherwise leave jobs waiting for nobody. Raises `Overtaken` if the leader's `term` is over.
    """
    for key in map(wire.text, client.smembers(wire.QUEUES)):
        queue = wire.queue_name(key)
        cursor = "0"
        while True:
            reply = _mend(client, [wire.groups_key(queue)], [queue, cursor, term])
            refuse(reply)
            cursor = wire.text(reply)
            if cursor == "0":
                break
