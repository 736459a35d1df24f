"""The situation: queues, workers, the leader and the server at a glance, for those who look often."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from redis import Redis

from packmule.coordination.redis.replies import as_text, as_texts, pipelined
from packmule.jobs import cluster, keys, queues
from packmule.observe.blocked import behind_at_least
from packmule.observe.history import ALL, Counts, History
from packmule.observe.leadership import Leader, candidates, leader
from packmule.observe.statistics import HOUR, MINUTE, Summary, summary

MINUTES, HOURS = 61, 25
"""An hour and a day, and the period that has just begun."""


@dataclass(frozen=True, slots=True)
class QueueState:
    """A queue now and lately.

    `counts` are its jobs by status, blocked ones among them; `blocked_more` says that more are blocked.
    `oldest` is for how many seconds the next job has waited. `per_second_in` is None until it is known.
    `workers` serve it.
    """

    name: str
    counts: dict[str, int]
    blocked_more: bool
    oldest: float | None
    per_second_in: float | None
    per_second_out: float
    history: History
    is_paused: bool
    rate: str | None
    workers: int

    @property
    def lately(self) -> Summary:
        """What it performed in the last five to six minutes."""
        return summary(self.name, self.history.recent(self.name))

    @property
    def hour(self) -> Sequence[Counts]:
        """What it performed in each of the last 60 whole minutes."""
        return self.history.minutes(self.name, MINUTES)[:-1]

    @property
    def day(self) -> Sequence[Counts]:
        """What it performed in each of the last 24 hours, the one that has just begun included."""
        return self.history.hours(self.name, HOURS)[1:]

    @property
    def depth(self) -> int:
        """The jobs that are still to run."""
        return sum(self.counts[name] for name in ("queued", "started", "blocked", "scheduled", "deferred"))

    @property
    def lacks_workers(self) -> bool:
        """Whether jobs wait and nobody would perform them."""
        return (
            self.workers == 0 and not self.is_paused and bool(self.counts["queued"] + self.counts["blocked"])
        )


@dataclass(frozen=True, slots=True)
class ServerState:
    """The server: `memory` of `most_memory` bytes (0: no limit), and whether it takes no more jobs."""

    kind: str
    version: str
    role: str
    replicas: int
    memory: int
    most_memory: int
    clients: int
    up_seconds: float
    is_full: bool
    is_suspended: bool


@dataclass(frozen=True, slots=True)
class Situation:
    """All queues, and what they share. `workers` counts them by state; `errors` are those seen this hour."""

    queues: Sequence[QueueState]
    workers: dict[str, int]
    leader: Leader | None
    schedulers: int
    server: ServerState
    errors: int
    hour: Sequence[Counts]
    day: Sequence[Counts]


class Situations:
    """The situation on `client`'s server again and again: what has passed is read once.

    >>> Situations(client).now(["mail"]).queues[0].depth  # doctest: +SKIP
    3
    """

    def __init__(self, client: Redis) -> None:
        self.client = client
        self.history = History(client)

    def now(self, first: Sequence[str] = ()) -> Situation:
        """The situation, with the queues `first` before the others. Raises redis-py's errors."""
        client = self.client
        names = queues.names(client, first)
        self.history.look(MINUTES, HOURS)
        workers, serving = Counter[str](), Counter[str]()
        for (state, served), count in cluster.states(client).items():
            workers[state] += count
            if state != "vanished":
                serving.update(dict.fromkeys(served.split(","), count))
        server, errors = self._server()
        return Situation(
            self._queues(names, serving),
            dict(workers.most_common()),
            leader(client),
            candidates(client),
            server,
            errors,
            self.history.minutes(ALL, MINUTES)[:-1],
            self.history.hours(ALL, HOURS)[:-1],
        )

    def _queues(self, names: Sequence[str], serving: Counter[str]) -> list[QueueState]:
        client, history = self.client, self.history
        depths, ages = queues.depths(client, names), queues.ages(client, names)
        blocked, more = behind_at_least(client, names)
        paused, rates = pipelined(client, [("SMEMBERS", keys.PAUSED), ("HGETALL", keys.QUEUE_RATES)], {})
        paused, rates = {as_text(each) for each in paused}, as_texts(rates)
        counts = {
            name: {
                "queued": each["queued"],
                "started": each["started"],
                "blocked": blocked[name],
                "scheduled": each["scheduled"],
                "deferred": each["deferred"],
                "failed": each["failed"],
            }
            for name, each in depths.items()
        }
        arrivals = history.arrivals(
            {name: sum(each.values()) - each["failed"] for name, each in counts.items()}
        )
        span = MINUTE + time.time() % MINUTE
        return [
            QueueState(
                name,
                counts[name],
                name in more,
                ages.get(name),
                None if arrivals is None else arrivals[name],
                sum(each.performed for each in history.minutes(name, 2)) / span,
                history,
                name in paused,
                rates[name].split(" ", 2)[-1] if name in rates else None,
                serving[name],
            )
            for name in names
        ]

    def _server(self) -> tuple[ServerState, int]:
        commands = [
            ("INFO",),
            ("EXISTS", keys.FULL),
            ("EXISTS", keys.SUSPENDED),
            ("ZCOUNT", keys.ERRORS, time.time() - HOUR, "+inf"),
        ]
        info, full, suspended, errors = pipelined(self.client, commands, 0)
        info = info or {}
        return ServerState(
            str(info.get("server_name", "redis")),
            str(info.get("valkey_version", info.get("redis_version", ""))),
            str(info.get("role", "")),
            int(info.get("connected_slaves", 0)),
            int(info.get("used_memory", 0)),
            int(info.get("maxmemory", 0)),
            int(info.get("connected_clients", 0)),
            float(info.get("uptime_in_seconds", 0)),
            bool(full),
            bool(suspended),
        ), errors
