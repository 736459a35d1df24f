"""Scale: how much waits and runs, and how many processes it wants, for those that start more of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import msgspec
from redis import Redis

from packmule.jobs import cluster, queues
from packmule.jobs.cluster import WorkerInfo
from packmule.observe.queue_info import QueueInfo, queue_infos
from packmule.observe.statistics import Statistics, by, minutes, queue_of, rates

WITHIN_SECONDS = 10.0
"""All that waits is to begin within so many seconds."""

LATELY_MINUTES = 15
UNKNOWN_SECONDS = 1.0
"""For how long jobs are taken to run while none has ended lately."""


class QueueScale(msgspec.Struct, frozen=True):
    """What an autoscaler needs of a queue: `waiting` jobs could start now, `running` ones have.

    `blocked` ones wait for others of their group or for a limit, which no worker changes. `oldest` is for how
    many seconds the next job has waited, and `per_second` how many jobs ended lately. So many `processes`
    perform what runs and begin what waits within 10 s, if jobs take as long as they did lately.
    """

    waiting: int
    running: int
    blocked: int
    scheduled: int
    oldest: float
    per_second: float
    processes: int
    paused: bool


class Scales(msgspec.Struct, frozen=True):
    """The numbers of all queues together, and of each by its name; the `backlog` is all that is to run."""

    backlog: int
    waiting: int
    running: int
    blocked: int
    scheduled: int
    oldest: float
    processes: int
    queues: dict[str, QueueScale]


def scales(client: Redis, names: Sequence[str]) -> Scales:
    """What an autoscaler needs of the queues `names`, each and together.

    >>> scales(client, ["mail"]).processes  # doctest: +SKIP
    3
    """
    return scales_of(client, queue_infos(client, names), cluster.workers(client))


def scales_of(client: Redis, infos: Mapping[str, QueueInfo], workers: Iterable[WorkerInfo]) -> Scales:
    """The same for who has read the queues and the registered workers already."""
    ages, speeds = queues.ages(client, [*infos]), rates(client)
    lately = by(minutes(client, LATELY_MINUTES), queue_of)
    at_once = _at_once(workers)
    work: dict[str, float] = {}
    found: dict[str, QueueScale] = {}
    for name, each in infos.items():
        ended = lately.get(name, Statistics())
        seconds = ended.seconds / ended.performed if ended.performed else UNKNOWN_SECONDS
        waiting = 0 if each.paused else each.queued
        work[name] = (each.started + waiting * seconds / WITHIN_SECONDS) / at_once
        found[name] = QueueScale(
            waiting,
            each.started,
            each.behind,
            each.scheduled,
            round(ages.get(name, 0.0), 3),
            round(speeds.get(name, 0.0), 3),
            math.ceil(work[name]),
            each.paused,
        )
    every = found.values()
    return Scales(
        sum(one.waiting + one.running + one.blocked for one in every),
        sum(one.waiting for one in every),
        sum(one.running for one in every),
        sum(one.blocked for one in every),
        sum(one.scheduled for one in every),
        max((one.oldest for one in every), default=0.0),
        math.ceil(sum(work.values())),
        found,
    )


def _at_once(workers: Iterable[WorkerInfo]) -> float:
    """How many plain functions a process performs at once, as those that are registered say it."""
    threads = [max(1, each["threads"]) for each in workers if each["state"] != "vanished"]
    return sum(threads) / len(threads) if threads else 1.0
