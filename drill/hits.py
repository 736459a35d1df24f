"""Hits: which of the drill's faults hit which run of a job, and what that explains."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from packmule.drill.ledger import Run
from packmule.jobs.keys import LEASE_SECONDS
from packmule.worker.heartbeat import INTERVAL

ACKNOWLEDGE_SECONDS = 0.3
"""Seconds until a job's outcome is in Redis: usually about 0.02, and on a busy machine at most this."""

BEGIN_SECONDS = 0.5
"""Seconds from a claim to the begin of its last job: usually at most 0.05, and on a busy machine this."""

KILLS = frozenset({"kill process", "kill pool"})
OF_A_POOL = frozenset({"kill pool", "stop pool", "freeze pool", "freeze supervisor", "cut pool"})
REDIS_FAULTS = frozenset({"kill redis", "restart redis", "freeze redis", "stop redis"})
PRIVATE = REDIS_FAULTS | {"cut pool"}
"""Faults that need a server of the drill's own."""

HEAVY = (OF_A_POOL | REDIS_FAULTS | {"freeze process"}) - {"stop pool"}
"""Faults that may delay jobs that another fault interrupted."""


@dataclass(slots=True)
class Fault:
    """A fault of `pid` (a process, a pool's supervisor, or 0 for Redis), between two instants."""

    kind: str
    pid: int
    began: float
    ended: float

    @property
    def doubles(self) -> bool:
        """Whether it may make jobs run twice; a frozen pool only if its leases may have ended meanwhile."""
        if self.kind in {"freeze pool", "freeze supervisor"}:
            return self.ended - self.began > LEASE_SECONDS - INTERVAL
        return self.kind in KILLS


class Hits:
    """Which fault hit which run."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self._on_process: defaultdict[int, list[Fault]] = defaultdict(list)
        self._on_pool: defaultdict[int, list[Fault]] = defaultdict(list)
        self._outages: list[Fault] = []
        self._heavy: list[Fault] = []
        for fault in faults:
            (self._on_pool if fault.kind in OF_A_POOL else self._on_process)[fault.pid].append(fault)
            if fault.kind in REDIS_FAULTS:
                self._outages.append(fault)
            if fault.kind in HEAVY:
                self._heavy.append(fault)

    def doubled(self, run: Run) -> bool:
        """Whether a fault may have made it run twice, because its process held the job then."""
        settled = self._settled(run)
        return any(
            fault.doubles and fault.began <= settled and fault.ended >= run.began - ACKNOWLEDGE_SECONDS
            for fault in self._on(run)
        )

    def cut_short_by(self, run: Run) -> Fault | None:
        """The fault that killed it before it ended."""
        return next((f for f in self._on(run) if f.kind in KILLS and f.ended >= run.began), None)

    def held_until(self, run: Run) -> float:
        """Until when it kept others out: until its end, or a fault after which others may have its job."""
        lost = [fault.began for fault in self._on(run) if fault.doubles and fault.ended >= run.began]
        return max(run.began, min([math.inf if run.ended is None else run.ended, *lost]))

    def began_late(self, run: Run) -> bool:
        """Whether an outage, a cut or a frozen process may have delayed its begin after its claim."""
        return any(
            fault.began <= run.began and fault.ended >= run.began - BEGIN_SECONDS
            for fault in (*self._outages, *self._hold_ups(run))
        )

    def held_up(self, since: Fault, until: float, lasting: float) -> bool:
        """Whether another heavy fault fell between `since` and the instant `until`.

        One counts, too, that was over `lasting` seconds before `since`, because its effect lasts.
        """
        return any(
            fault is not since and fault.began <= until and fault.ended + lasting >= since.began
            for fault in self._heavy
        )

    def away(self, since: float, until: float) -> float:
        """For how many seconds between two instants Redis was away."""
        return sum(max(0.0, min(until, each.ended) - max(since, each.began)) for each in self._outages)

    def _on(self, run: Run) -> Iterator[Fault]:
        yield from self._on_process[run.pid]
        yield from self._on_pool[run.pool]

    def _hold_ups(self, run: Run) -> list[Fault]:
        return [fault for fault in self._on(run) if fault.kind.startswith(("freeze", "cut"))]

    def _settled(self, run: Run) -> float:
        """When its outcome was in Redis at the latest; an outage, a cut or a frozen process delays it."""
        if run.ended is None:
            return math.inf
        settled = run.ended + ACKNOWLEDGE_SECONDS
        delays = [*self._outages, *self._hold_ups(run)]
        for delay in sorted(delays, key=lambda fault: fault.began):
            if delay.began <= settled and delay.ended >= run.ended:
                settled = max(settled, delay.ended + ACKNOWLEDGE_SECONDS)
        return settled
