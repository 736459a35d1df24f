"""Mending: groups of waiting jobs go on though the job that stood for them in their queue's list was lost."""

from __future__ import annotations

from redis import Redis

from coordination.scripts import Script
from jobs import wire
from scheduler.leader import FENCE, refuse

_mend = Script("scheduler", "mend_groups", after=(*wire.GATES, *FENCE))


def mend(client: Redis, term: str = "") -> bool:
    """Look at the groups of all queues, a hundred a call; whether there are any. It does no harm at any time.

    A list that was emptied by hand, a record that was deleted, or a slot whose holder vanished with its
    claims would otherwise leave jobs waiting for nobody. Raises `Overtaken` if the leader's `term` is over.
    """
    queues = [wire.queue_name(wire.text(key)) for key in client.smembers(wire.QUEUES)]
    with client.pipeline(transaction=False) as pipeline:
        for queue in queues:
            pipeline.exists(wire.groups_key(queue))
        queues = [queue for queue, has_groups in zip(queues, pipeline.execute(), strict=True) if has_groups]
    for queue in queues:
        cursor = "0"
        while True:
            reply = _mend(client, [wire.groups_key(queue)], [queue, cursor, term])
            refuse(reply)
            cursor = wire.text(reply)
            if cursor == "0":
                break
    return bool(queues)
