"""Queues in numbers: how many jobs each has in which status, and how long the next one has waited."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from redis import Redis

from packmule.jobs import queues
from packmule.observe.blocked import behind
from packmule.observe.statistics import rates


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


class QueueScale(msgspec.Struct, frozen=True):
    """What an autoscaler needs of a queue: `waiting` jobs could start now, `running` ones have.

    `blocked` ones wait for others of their group or for a limit, which no worker changes. `oldest` is for how
    many seconds the next job has waited, and `per_second` how many jobs ended lately.
    """

    waiting: int
    running: int
    blocked: int
    scheduled: int
    oldest: float
    per_second: float
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


def queue_scales(client: Redis, names: Sequence[str]) -> dict[str, QueueScale]:
    """What an autoscaler needs of the queues `names`."""
    found, ages, speeds = queue_infos(client, names), queues.ages(client, names), rates(client)
    return {
        name: QueueScale(
            0 if each.paused else each.queued,
            each.started,
            each.behind,
            each.scheduled,
            round(ages.get(name, 0.0), 3),
            round(speeds.get(name, 0.0), 3),
            each.paused,
        )
        for name, each in found.items()
    }
