"""The drill's evidence: when and where jobs ran, which faults were injected, and the verdict from both."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from packmule.jobs.keys import LEASE_SECONDS
from packmule.worker.heartbeat import INTERVAL
from packmule.worker.rescue import MOST_DEATHS

ACKNOWLEDGE_SECONDS = 0.3
"""Seconds until a job's outcome is in Redis: usually about 0.02, and on a busy machine at most this."""

KILLED, POOL_GONE, HELD_UP = "process killed", "pool gone", "second fault"
LIMITS = {KILLED: 1.0, POOL_GONE: 15.0, HELD_UP: 40.0}
"""Seconds within which 99 of 100 interrupted jobs must run again. If another fault delayed a job, for example
by hitting the worker that was about to claim it, it counts under "second fault"."""

ALONE, CALLED_BACK = "-alone", "-called-back"
"""Parts of the ids of singletons, before their key, and of jobs with a callback."""

KILLS = frozenset({"kill process", "kill pool"})
OF_A_POOL = frozenset({"kill pool", "stop pool", "freeze pool", "freeze supervisor", "cut pool"})
REDIS_FAULTS = frozenset({"kill redis", "restart redis", "freeze redis", "stop redis"})
PRIVATE = REDIS_FAULTS | {"cut pool"}
"""Faults that need a server of the drill's own."""

HEAVY = (OF_A_POOL | REDIS_FAULTS | {"freeze process"}) - {"stop pool"}
"""Faults that may delay jobs that another fault interrupted."""


@dataclass(slots=True)
class Run:
    """One run of a job by process `pid` of the pool `pool`; `ended` is None if it was cut short."""

    job: str
    pid: int
    pool: int
    began: float
    ended: float | None = None


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


class State(NamedTuple):
    """A job's state in Redis at the end."""

    status: str
    deaths: int


class Ledger:
    """The runs that jobs recorded in the file at `path`, which is read as it grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self.runs: list[Run] = []
        self.running: dict[int, Run] = {}
        self.callbacks: list[Run] = []

    def catch_up(self) -> None:
        """Read what was recorded since the last call."""
        with self._path.open("rb") as file:
            file.seek(self._read)
            whole = file.read().rpartition(b"\n")[0]
        self._read += len(whole) + bool(whole)
        for line in whole.decode().splitlines():
            self._enter(*line.split())

    def _enter(self, what: str, job: str, pid: str, pool: str, at: str) -> None:
        if what == "callback":
            self.callbacks.append(Run(job, int(pid), int(pool), float(at), float(at)))
        elif what == "begin":
            self.running[int(pid)] = run = Run(job, int(pid), int(pool), float(at))
            self.runs.append(run)
        else:
            self.running.pop(int(pid)).ended = float(at)


@dataclass(frozen=True)
class Verdict:
    """The result of a drill. Lists hold job ids; `recoveries` are seconds until interrupted jobs ran again.

    `gave_up` are jobs that failed for good because three processes died with them, as promised. `excess` are
    jobs that ended more often than faults explain, or whose callback did. `uncalled` are jobs whose callback
    never ran, and `overlapping` singletons that ran at once. `miscounted` are batches. `mishaps` are
    sentences.
    """

    acknowledged: int
    completed: int
    lost: Sequence[str]
    stuck: Sequence[str]
    failed: Sequence[str]
    misrecorded: Sequence[str]
    gave_up: Sequence[str]
    duplicated: Sequence[str]
    in_flight: int
    excess: Sequence[str]
    recoveries: Mapping[str, Sequence[float]]
    uncalled: Sequence[str] = field(default=())
    overlapping: Sequence[str] = field(default=())
    miscounted: Sequence[str] = field(default=())
    mishaps: Sequence[str] = field(default=())

    @property
    def broken(self) -> list[str]:
        """One sentence for each broken promise."""
        counted = {
            "acknowledged and lost": self.lost,
            "stuck": self.stuck,
            "failed without a third death": self.failed,
            "recorded with a wrong outcome": self.misrecorded,
            "ran twice without having been in flight at a fault": self.excess,
            "finished without their callback": self.uncalled,
            "ran at once although they are singletons": self.overlapping,
            "counted wrongly (batches)": self.miscounted,
        }
        late = {
            name: percentile(seconds, 99)
            for name, seconds in self.recoveries.items()
            if seconds and percentile(seconds, 99) > LIMITS[name]
        }
        return [
            *(f"{len(ids)} jobs {what}, such as {ids[0]}" for what, ids in counted.items() if ids),
            *(f"after '{name}' jobs ran again in {p99:.1f} s (p99)" for name, p99 in late.items()),
            *self.mishaps,
        ]


def judge(
    acknowledged: Collection[str],
    states: Mapping[str, State],
    held: Collection[str],
    runs: Sequence[Run],
    faults: Sequence[Fault],
    mishaps: Sequence[str] = (),
    callbacks: Sequence[Run] = (),
    miscounted: Sequence[str] = (),
) -> Verdict:
    """Compare the acknowledged jobs with their states in Redis at the end, and with the runs.

    `states` has each acknowledged job that has a record; `held` are the ids in queues or claimed by workers.
    `callbacks` are the runs of callbacks, and `miscounted` batches whose counts are not those of their jobs.
    """
    runs_of = defaultdict(list)
    for run in runs:
        runs_of[run.job].append(run)
    fates = defaultdict(list)
    for id in sorted(acknowledged):
        has_run = any(run.ended is not None for run in runs_of[id])
        fates[_fate(has_run, states.get(id), id in held)].append(id)
    hits = _Hits(faults)
    in_flight = Counter(run.job for run in runs if hits.doubled(run))
    ended = Counter(run.job for run in runs if run.ended is not None)
    called = Counter(run.job for run in callbacks)
    explained = Counter(run.job for run in callbacks if hits.doubled(run))
    unexplained = sum(run.ended is None and hits.cut_short_by(run) is None for run in runs)
    if unexplained:
        mishaps = [*mishaps, f"{unexplained} runs were cut short without a fault"]
    return Verdict(
        acknowledged=len(acknowledged),
        completed=len(fates["completed"]),
        lost=fates["lost"],
        stuck=fates["stuck"],
        failed=fates["failed"],
        misrecorded=fates["misrecorded"],
        gave_up=fates["gave up"],
        duplicated=[id for id, times in ended.items() if times > 1],
        in_flight=in_flight.total(),
        excess=[
            *(id for id, times in ended.items() if times - 1 > in_flight[id]),
            *(id for id, times in called.items() if times - 1 > explained[id] + in_flight[id]),
        ],
        uncalled=[id for id in fates["completed"] if id.endswith(CALLED_BACK) and not called[id]],
        overlapping=list(_overlapping(runs, hits)),
        miscounted=miscounted,
        recoveries=_recoveries(runs_of, hits),
        mishaps=mishaps,
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of `values` that is at least as large as `percent` percent of them."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def _fate(has_run: bool, state: State | None, is_held: bool) -> str:
    if state is None:
        return "misrecorded" if has_run else "lost"
    if state.status == "finished":
        return "completed" if has_run else "misrecorded"
    if state.status == "failed":
        return "gave up" if state.deaths >= MOST_DEATHS else "failed"
    return "stuck" if is_held else "lost"


class _Hits:
    """Which fault hit which run."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self._on_process: defaultdict[int, list[Fault]] = defaultdict(list)
        self._on_pool: defaultdict[int, list[Fault]] = defaultdict(list)
        self.outages: list[Fault] = []
        self.heavy: list[Fault] = []
        for fault in faults:
            (self._on_pool if fault.kind in OF_A_POOL else self._on_process)[fault.pid].append(fault)
            if fault.kind in REDIS_FAULTS:
                self.outages.append(fault)
            if fault.kind in HEAVY:
                self.heavy.append(fault)

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

    def _on(self, run: Run) -> Iterator[Fault]:
        yield from self._on_process[run.pid]
        yield from self._on_pool[run.pool]

    def _settled(self, run: Run) -> float:
        """When its outcome was in Redis at the latest; an outage, a cut or a frozen process delays it."""
        if run.ended is None:
            return math.inf
        settled = run.ended + ACKNOWLEDGE_SECONDS
        held_up = [fault for fault in self._on(run) if fault.kind.startswith(("freeze", "cut"))]
        for delay in sorted([*self.outages, *held_up], key=lambda fault: fault.began):
            if delay.began <= settled and delay.ended >= run.ended:
                settled = max(settled, delay.ended + ACKNOWLEDGE_SECONDS)
        return settled


def _recoveries(runs_of: Mapping[str, Sequence[Run]], hits: _Hits) -> dict[str, list[float]]:
    """Seconds from the kill that cut a run short to the job's next begin, by what was killed."""
    found: dict[str, list[float]] = {name: [] for name in LIMITS}
    for runs in runs_of.values():
        begins = sorted(run.began for run in runs)
        for run in runs:
            fault = hits.cut_short_by(run) if run.ended is None else None
            later = begins[bisect_right(begins, fault.began) :] if fault else ()
            if fault and later:
                name = POOL_GONE if fault.kind in OF_A_POOL else KILLED
                seconds = later[0] - fault.began
                if seconds > LIMITS[name] and any(
                    other is not fault and other.began <= later[0] and other.ended >= fault.began
                    for other in hits.heavy
                ):
                    name = HELD_UP
                found[name].append(seconds)
    return found


def _overlapping(runs: Sequence[Run], hits: _Hits) -> Iterator[str]:
    """Singletons that began while another with their key ran, without a fault that explains it."""
    by_key = defaultdict(list)
    for run in runs:
        _, is_alone, key = run.job.partition(ALONE)
        if is_alone:
            by_key[key].append(run)
    for same in by_key.values():
        same.sort(key=lambda run: run.began)
        for first, second in pairwise(same):
            if first.ended is not None and second.began < first.ended and not hits.doubled(first):
                yield second.job
