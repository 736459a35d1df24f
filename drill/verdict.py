"""The drill's verdict: the ledger, the faults and the records in Redis, held against the promises."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from packmule.drill.hits import BEGIN_SECONDS, OF_A_POOL, Fault, Hits
from packmule.drill.job import MOST_SLOTTED, MOST_WEIGHED, RATE
from packmule.drill.ledger import ALONE, CALLED_BACK, COST, HOSTED, RATED, SLOTTED, WEIGHED, Run, State
from packmule.drill.limits import crowded, hasty
from packmule.jobs.keys import LEASE_SECONDS
from packmule.worker.pool.upkeep import RESCUE_INTERVAL
from packmule.worker.rescue import MOST_DEATHS

CLAIM_SECONDS = 2.0
"""Seconds until a job that was given back runs: a worker claims it, and pools and Redis have answered."""

RESCUED_SECONDS = LEASE_SECONDS + RESCUE_INTERVAL + CLAIM_SECONDS
"""Seconds until the jobs of a pool that is gone run again: its leases end, another pool looks for such."""

KILLED, POOL_GONE, HELD_UP = "process killed", "pool gone", "second fault"
LIMITS = {KILLED: 1.0, POOL_GONE: RESCUED_SECONDS, HELD_UP: 2 * RESCUED_SECONDS}
"""Seconds within which 99 of 100 interrupted jobs must run again. If another fault delayed a job, for example
by hitting the worker that was about to claim it, it counts under "second fault": it waits for two rescues.
For as long as Redis is away nothing is promised. The lull after that is shorter than a rescue."""


SLOTS = {SLOTTED: MOST_SLOTTED, WEIGHED: MOST_WEIGHED, HOSTED: MOST_WEIGHED}
"""How many slots a key has, by the kind of job."""


@dataclass(frozen=True)
class Verdict:
    """The result of a drill. Lists hold job ids; `recoveries` are seconds until interrupted jobs ran again.

    `gave_up` are jobs that failed for good because three processes died with them, as promised. `excess` are
    jobs that ended more often than faults explain, or whose callback did. `uncalled` are jobs whose callback
    never ran. `overlapping` are singletons that ran at once, `crowded` jobs that ran beside more than their
    slots allow, and `hasty` those that began sooner than their rate does. `miscounted` are batches, and
    `taken` names slots and groups that were not free at the end, or after a rescue. `mishaps` are sentences.
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
    crowded: Sequence[str] = field(default=())
    hasty: Sequence[str] = field(default=())
    miscounted: Sequence[str] = field(default=())
    taken: Sequence[str] = field(default=())
    mishaps: Sequence[str] = field(default=())

    @property
    def broken(self) -> list[str]:
        """One sentence for each broken promise."""
        counted = {
            "jobs acknowledged and lost": self.lost,
            "jobs stuck": self.stuck,
            "jobs failed without a third death": self.failed,
            "jobs recorded with a wrong outcome": self.misrecorded,
            "jobs ran twice without having been in flight at a fault": self.excess,
            "jobs finished without their callback": self.uncalled,
            "jobs ran at once although they are singletons": self.overlapping,
            "jobs ran beside more than their slots allow": self.crowded,
            "jobs began sooner than their rate allows": self.hasty,
            "batches counted wrongly": self.miscounted,
            "slots or groups taken that nothing needs": self.taken,
        }
        return [
            *(f"{len(names)} {what}, such as {names[0]}" for what, names in counted.items() if names),
            *(
                f"after '{name}' jobs ran again in {p99:.1f} s (p99), not in {LIMITS[name]:g} s"
                for name, p99 in self.late.items()
            ),
            *self.mishaps,
        ]

    @property
    def late(self) -> dict[str, float]:
        """The recoveries that took too long, as their 99th percentile."""
        found = {name: percentile(seconds, 99) for name, seconds in self.recoveries.items() if seconds}
        return {name: p99 for name, p99 in found.items() if p99 > LIMITS[name]}


def judge(
    acknowledged: Collection[str],
    states: Mapping[str, State],
    held: Collection[str],
    runs: Sequence[Run],
    faults: Sequence[Fault],
    mishaps: Sequence[str] = (),
    callbacks: Sequence[Run] = (),
    miscounted: Sequence[str] = (),
    taken: Sequence[str] = (),
) -> Verdict:
    """Compare the acknowledged jobs with their states in Redis at the end, and with the runs.

    `states` has each acknowledged job that has a record; `held` are the ids that wait or are claimed.
    `callbacks` are the runs of callbacks, `miscounted` batches whose counts are not those of their jobs, and
    `taken` the slots and groups that nothing needs any more.
    """
    runs_of = defaultdict(list)
    for run in runs:
        runs_of[run.job].append(run)
    fates = defaultdict(list)
    for id in sorted(acknowledged):
        has_run = any(run.ended is not None for run in runs_of[id])
        fates[_fate(has_run, states.get(id), id in held)].append(id)
    hits = Hits(faults)
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
        stuck=[*fates["stuck"], *sorted(set(held) - set(acknowledged))],
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
        overlapping=list(_crowded(runs, hits, ALONE, 1)),
        crowded=[job for kind, most in SLOTS.items() for job in _crowded(runs, hits, kind, most)],
        hasty=list(_hasty(runs, hits)),
        miscounted=miscounted,
        taken=taken,
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


def _recoveries(runs_of: Mapping[str, Sequence[Run]], hits: Hits) -> dict[str, list[float]]:
    """Seconds from the kill that cut a run short to the job's next begin, by what was killed.

    A pool that was killed before holds up singletons and jobs with slots: until its rescue, it keeps a place
    that they need.
    """
    found: dict[str, list[float]] = {name: [] for name in LIMITS}
    for job, runs in runs_of.items():
        begins = sorted(run.began for run in runs)
        lasting = RESCUED_SECONDS if any(kind in job for kind in (ALONE, *SLOTS)) else 0.0
        for run in runs:
            fault = hits.cut_short_by(run) if run.ended is None else None
            later = begins[bisect_right(begins, fault.began) :] if fault else ()
            if fault and later:
                name = POOL_GONE if fault.kind in OF_A_POOL else KILLED
                seconds = later[0] - fault.began
                if seconds > LIMITS[name] and hits.held_up(fault, later[0], lasting):
                    name = HELD_UP
                    seconds -= hits.away(fault.began, later[0])
                found[name].append(seconds)
    return found


def _crowded(runs: Sequence[Run], hits: Hits, kind: str, most: int) -> Iterator[str]:
    """The jobs of a kind that took more than `most` slots with those of their key beside which they began."""
    for same in _by_key(runs, kind):
        spans = [(run.began, hits.held_until(run), run.job, _cost(run.job)) for run in same]
        yield from crowded(spans, most)


def _cost(job: str) -> int:
    """What a job with slots costs: one slot, or as many as its id ends in."""
    return int(job.rpartition(COST)[2]) if WEIGHED in job or HOSTED in job else 1


def _hasty(runs: Sequence[Run], hits: Hits) -> Iterator[str]:
    """The jobs with a rate that began too soon, without those that a fault may have kept from beginning."""
    for same in _by_key(runs, RATED):
        begins = [(run.began, run.job) for run in same if not hits.began_late(run)]
        yield from hasty(begins, RATE, BEGIN_SECONDS)


def _by_key(runs: Sequence[Run], kind: str) -> Collection[Sequence[Run]]:
    """The runs of jobs of a kind, of each key together."""
    by_key = defaultdict(list)
    for run in runs:
        _, is_of_kind, key = run.job.partition(kind)
        if is_of_kind:
            by_key[key.partition(COST)[0]].append(run)
    return by_key.values()
