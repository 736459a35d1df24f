"""The limits' fault run: limited jobs, while workers, pools and the job server are killed and frozen.

    python tests/worker/limit_faults.py [kills with SIGKILL] [seconds at most] [kills|workers]

Some two kills are made a second. A count that only the holder of the newest token can change, on a server
that nobody kills, tells whether two singletons ran at once. With `kills` nothing is frozen or told
to stop: who is frozen for a while and then killed with his pool keeps a singleton's place for both times.
With `workers` the server is not killed either.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from packmule.coordination.redis.connection import connect
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.coordination.redis.replies import as_text
from packmule.drill import job_states
from packmule.jobs import wire
from packmule.jobs.client import Client
from packmule.scheduler.scheduler import Scheduler
from packmule.testing import private_server
from packmule.tests.fork_server import Forked
from packmule.tests.pace import pace
from packmule.tests.worker import (
    limit_ledger,
    limited_jobs,
)
from packmule.tests.worker.limit_ledger import HOST
from packmule.tests.worker.limited_jobs import MOST_SLOTTED, MOST_WEIGHED, RATE
from packmule.tests.worker.pools import children_of, is_alive

POOLS, PROCESSES = 3, 2
MACHINES = "abb"
"""Of the pools, and of those that take their places."""

SETTLED_SECONDS = 1.5
RETURN_SECONDS = 0.5
"""Until workers notice that the server is available again."""

BEGIN_SECONDS = 0.15
"""From a claim to its job's begin, on a machine that has nothing else to do."""

MENDED_SECONDS = 60
"""Until nothing is left of a limit whose jobs have ended."""

KINDS = {
    "s": limited_jobs.counted,
    "c": limited_jobs.slotted,
    "w": limited_jobs.weighed,
    "h": limited_jobs.weighed_on_host,
    "r": limited_jobs.rated,
    "f": limited_jobs.fair,
}
KEYS = ("s1", "s2", "s3", "c1", "c2", "w1", "h1", "r1", "f1", "f2", "f3")
BACKLOGS = {"r": 40, "h": 20}
"""How many jobs of a key wait at any time, by the key's first letter; six by default."""


@dataclass
class Report:
    """What was broken how often, and what became of the jobs and their limits."""

    faults: Counter[str] = field(default_factory=Counter)
    acknowledged: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    unended: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    lost_updates: int = 0
    fences_fall: int = 0
    stale_refused: int = 0
    longest_gap: float = 0.0
    in_it: list[str] = field(default_factory=list)
    crowded: list[str] = field(default_factory=list)
    hasty: list[str] = field(default_factory=list)
    displaced: float = 0.0
    left: list[str] = field(default_factory=list)
    ended_pools: list[str] = field(default_factory=list)
    """Pools that ended by themselves."""

    def broken(self) -> list[str]:
        """The names of what must not be, and was."""
        rules = {
            "unended": not self.unended,
            "left": not self.left,
            "ended_pools": not self.ended_pools,
            "ended": set(self.ended) <= {"finished", "failed after 3 deaths"},
            "lost_updates": self.lost_updates <= 0,
            "fences_fall": self.fences_fall == 0,
            "doubled": not self.doubled,
            "crowded": not self.crowded,
            "hasty": not self.hasty,
        }
        return [name for name, is_kept in rules.items() if not is_kept]


class Crowd:
    """The pools, and the faults that strike them."""

    def __init__(self, server: EmbeddedServer, log: Path, only: str, *options: str) -> None:
        self.only = only
        self.options = options
        self.happened: list[tuple[float, str]] = []
        self.server = server
        self.log = log
        self.pools: list[tuple[subprocess.Popen[bytes], float]] = []
        self.struck: dict[int, float] = {}
        self.frozen: set[int] = set()
        self.outages: list[tuple[float, float]] = []
        self.faults: Counter[str] = Counter()
        self.ended_pools: list[str] = []
        self.machines = itertools.cycle(MACHINES)
        for _ in range(POOLS):
            self.start()

    def start(self) -> None:
        command = [
            "packmule.tests.worker.run_pool",
            self.server.url,
            str(PROCESSES),
            "grace=2",
            f"machine={next(self.machines)}",
            *self.options,
        ]
        with self.log.open("ab") as output:
            process = Forked(command, start_new_session=True, stderr=output)
        self.pools.append((process, time.monotonic()))

    def replace_ended(self) -> None:
        """Replace pools that ended by themselves, which none should."""
        for pool, since in list(self.pools):
            if pool.poll() is not None:
                self.ended_pools.append(f"pid {pool.pid}, code {pool.returncode}")
                self.pools.remove((pool, since))
                self.start()

    def break_something(self, dice: random.Random) -> None:
        self.replace_ended()
        kinds = ["worker killed"] * 12 + ["pool killed"]
        if self.only != "workers":
            kinds += ["server killed"] * 2
        if not self.only:
            kinds += ["pool told to stop", "frozen a moment", "frozen for long"]
        kind = dice.choice(kinds)
        if kind == "server killed":
            self.kill_server()
        elif kind in ("pool killed", "pool told to stop"):
            self._end_pool(dice, kind)
        else:
            ready = [pool for pool, since in self.pools if time.monotonic() - since > SETTLED_SECONDS]
            workers = [pid for pool in ready for pid in children_of(pool.pid) if pid not in self.frozen]
            if not workers:
                return
            pid = dice.choice(workers)
            if kind == "worker killed":
                self.strike(pid)
            else:
                self._freeze(pid, dice.uniform(1, 4) if kind == "frozen a moment" else 13.0)
        self.faults[kind] += 1
        self.happened.append((time.monotonic(), kind))

    @property
    def kills(self) -> int:
        return self.faults["worker killed"] + self.faults["pool killed"] + self.faults["server killed"]

    def strike(self, pid: int) -> None:
        self.struck.setdefault(pid, time.monotonic())  # not anew for one that is dead and not yet buried
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def _freeze(self, pid: int, seconds: float) -> None:
        self.frozen.add(pid)
        self.struck.setdefault(pid, time.monotonic())

        def thaw() -> None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
        threading.Timer(seconds, thaw).start()

    def _end_pool(self, dice: random.Random, kind: str) -> None:
        pool, since = dice.choice(self.pools)
        self.pools.remove((pool, since))
        if kind == "pool killed":
            now = time.monotonic()
            self.struck = dict.fromkeys(children_of(pool.pid), now) | self.struck
            with suppress(ProcessLookupError):
                os.killpg(pool.pid, signal.SIGKILL)
        else:
            self.struck = dict.fromkeys(children_of(pool.pid), time.monotonic() + 2) | self.struck
            pool.terminate()
        threading.Thread(target=pool.wait).start()
        self.start()

    def kill_server(self) -> None:
        begun, pid = time.monotonic(), self.server.pid()
        if pid:
            os.kill(pid, signal.SIGKILL)
            while is_alive(pid):
                time.sleep(0.005)
        self.server.ensure()
        self.outages.append((begun, time.monotonic() + RETURN_SECONDS))

    def close(self) -> None:
        for pool, _ in self.pools:
            with suppress(ProcessLookupError):
                os.killpg(pool.pid, signal.SIGKILL)
            pool.wait()


def run(kills: int, seconds: float, seed: int = 1, only: str = "") -> Report:
    dice = random.Random(seed)
    with ExitStack() as stack:
        server, guarded = (stack.enter_context(private_server()) for _ in range(2))
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (place / "url").write_text(guarded.url)
        (place / "ledger").touch()
        client = stack.enter_context(connect(None, server.data_dir))
        Client(client).make_default()
        crowd = Crowd(server, Path(os.environ.get("LIMIT_FAULTS_LOG", place / "log")), only)
        stack.callback(crowd.close)
        second = stack.enter_context(pace())
        stack.enter_context(scheduling(client))
        acknowledged = _load(crowd, place, kills, time.monotonic() + seconds, dice)
        report = Report(crowd.faults, len(acknowledged), ended_pools=crowd.ended_pools)
        _await_end(client, acknowledged, report)
        _judge(client, connect(guarded.url, place), crowd, place, report, BEGIN_SECONDS * second())
        return report


@contextmanager
def scheduling(client: Redis) -> Iterator[None]:
    """Let a thread be the scheduler until the block ends."""
    scheduler, done = Scheduler(client), threading.Event()

    def schedule() -> None:
        while not done.is_set():
            done.wait(max(0.01, scheduler.step()))

    thread = threading.Thread(target=schedule)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def cost_of(name: str) -> int:
    """What a job of this name costs, which ends in its number."""
    return 5 + 37 * int(name.rpartition("-")[2]) % 90


def _load(crowd: Crowd, place: Path, kills: int, until: float, dice: random.Random) -> list[str]:
    """Keep jobs of every key waiting, and break things meanwhile; the ids that were acknowledged."""
    acknowledged: list[str] = []
    given: Counter[str] = Counter()
    next_fault = time.monotonic() + 3.0
    while crowd.kills < kills and time.monotonic() < until:
        written = Counter(
            line.split()[1].partition(HOST)[0]
            for line in (place / "ledger").read_text().splitlines()
            if line[0] == "w"
        )
        for key in KEYS:
            for _ in range(BACKLOGS.get(key[0], 6) - (given[key] - written[key])):
                given[key] += 1
                call = (str(place), key, f"{key}-{given[key]}", dice.uniform(0.0, 0.15))
                cost = (cost_of(call[2]),) if key[0] in "wh" else ()
                with suppress(RedisError):
                    acknowledged.append(KINDS[key[0]].enqueue(*call, *cost))
        if time.monotonic() > next_fault:
            next_fault = time.monotonic() + dice.uniform(0.1, 0.8)
            crowd.break_something(dice)
        time.sleep(0.05)
    return acknowledged


def _await_end(client: Redis, ids: list[str], report: Report) -> None:
    deadline = time.monotonic() + 60
    waiting = set(ids)
    while waiting and time.monotonic() < deadline:
        time.sleep(0.2)
        with suppress(RedisError):
            for id, state in job_states.states(client, waiting).items():
                if state.status in wire.ENDED:
                    waiting.remove(id)
                    died = state.status == "failed" and state.deaths >= 3
                    report.ended["failed after 3 deaths" if died else state.status] += 1
    report.unended = sorted(waiting)
    deadline = time.monotonic() + MENDED_SECONDS
    while (left := _left(client)) and time.monotonic() < deadline:
        time.sleep(0.2)
    report.left = left


def _left(client: Redis) -> list[str]:
    """The keys of limits that are there."""
    kinds = ("groups", "group", "holders", "blocked", "weights")
    return [as_text(key) for kind in kinds for key in client.keys(f"pm:{kind}:*")]


def _judge(client: Redis, guarded: Redis, crowd: Crowd, place: Path, report: Report, late: float) -> None:
    ledger = limit_ledger.load(place / "ledger")
    ledger.struck, ledger.frozen, ledger.outages = crowd.struck, crowd.frozen, crowd.outages
    report.doubled = ledger.doubled()
    singletons = [key for key in ledger.runs if key[0] == "s"]
    for key in singletons:
        wrote = sorted((run for run in ledger.runs[key] if run.wrote), key=lambda run: run.ended or 0)
        report.lost_updates += len(wrote) - int(guarded.get(key) or 0)
        report.fences_fall += sum(late.fence < early.fence for early, late in itertools.pairwise(wrote))
        report.stale_refused += sum(not run.wrote and run.pid not in crowd.struck for run in ledger.runs[key])
        gap, since = ledger.longest_gap(key)
        if gap > report.longest_gap:
            report.longest_gap = gap
            report.in_it = [
                f"{kind} at {at - since:.1f}" for at, kind in crowd.happened if 0 < at - since < gap
            ]
        report.displaced = max(report.displaced, ledger.displaced(key))
    report.crowded = [
        job for key in ledger.runs if key[0] == "c" for job in ledger.crowded(key, MOST_SLOTTED)
    ]
    report.crowded += [
        job for key in ledger.runs if key[0] in "wh" for job in ledger.overloaded(key, MOST_WEIGHED, cost_of)
    ]
    report.hasty = [job for key in ledger.runs if key[0] == "r" for job in ledger.hasty(key, RATE, late)]


def main() -> None:
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 900.0
    begun = time.monotonic()
    report = run(kills, seconds, seed=int(begun), only="".join(sys.argv[3:]))
    print(f"{time.monotonic() - begun:.0f} s, {os.cpu_count()} cores, {POOLS} pools of {PROCESSES} processes")
    for name, value in vars(report).items():
        print(f"{name:14} {dict(value) if isinstance(value, Counter) else value}")
    if report.broken():
        sys.exit(f"broken: {', '.join(report.broken())}")


if __name__ == "__main__":
    main()
