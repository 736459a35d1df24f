"""Queues in numbers: how many jobs each has in which status, and how long the next one has waited."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from redis import Redis

from packmule.jobs import queues
from packmule.observe.blocked import behind


class QueueInfo(msgspec.Struct, frozen=True):
    """The jobs of a queue by status; `behind` are those that wait for others of their group, or for a limit.

    Stopped jobs count as failed.
    """

    queued: int
    behind: int
    scheduled: int
    started: int
    finished: int
    failed: int
    deferred: int
    canceled: int
    paused: bool


def queue_infos(client: Redis, names: Sequence[str]) -> dict[str, QueueInfo]:
    """The queues `names` in their order.

    >>> queue_infos(client, ["mail"])["mail"].queued  # doctest: +SKIP
    3
    """
    depths, waiting, paused = queues.depths(client, names), behind(client, names), queues.paused(client)
    return {
        name: QueueInfo(**counts, behind=waiting[name], paused=name in paused)
        for name, counts in depths.items()
    }
