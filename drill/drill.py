"""The fault drill: run producers and workers, inject faults, and check that every promise was kept."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from redis import Redis

from packmule.config import Settings, child_environment
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.drill import job_states
from packmule.drill.faults import FaultInjector, WorkerPool
from packmule.drill.job import CALLBACK
from packmule.drill.ledger import Ledger, State
from packmule.drill.load import MEAN_SECONDS, QUEUES
from packmule.drill.network import Network
from packmule.drill.plan import Plan, fault_queues
from packmule.drill.verdict import Verdict, judge
from packmule.jobs import wire

PRODUCERS = 3
BUSY = 0.6
"""The share of the workers' time that the load takes; the rest is left for interrupted jobs."""

TICK = 0.02
DRAIN_SECONDS = 60.0
GRACE = 25.0
STOP_SECONDS = 5.0


@dataclass
class Drill:
    """One drill, and the processes that it started."""

    client: Redis
    settings: Settings
    plan: Plan
    folder: Path
    server: EmbeddedServer | None
    started: list[WorkerPool] = field(default_factory=list)
    mishaps: list[str] = field(default_factory=list)
    orphaned: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Create the files that producers and jobs append to."""
        for name in ("ledger", "acknowledged", "batches"):
            (self.folder / name).touch()
        self.random = Random(self.plan.seed)  # noqa: S311  a seed repeats a drill
        self.ledger = Ledger(self.folder / "ledger")
        self.network = Network(self.server.socket_path) if self.server else None
        self.injector = FaultInjector(self._start_pool, self.ledger, self.server, self.random)

    def run(self, update: Callable[[str], None]) -> Verdict:
        """Inject the planned faults, let the workers finish, and judge. Every process that it started ends.

        `update` is called with a line about the progress; what it raises ends the drill.
        """
        self.update = update
        producers: list[subprocess.Popen[bytes]] = []
        try:
            self.injector.pools += [self._start_pool() for _ in range(self.plan.pools)]
            producers += [self._start_producer(number) for number in range(PRODUCERS)]
            self._inject_faults()
            self.injector.thaw_all()
            if any(each.poll() is not None for each in producers):
                self.mishaps.append(f"a producer ended by itself ({self.folder}/producer-*.log)")
            _end(producers)
            states = self._await_end()
            held, taken = job_states.held(self.client), job_states.taken(self.client)
            miscounted = job_states.miscounted(self.client, self.batches())
            self._stop_pools()
            self.ledger.catch_up()
        finally:
            self.injector.thaw_all()
            # Only pools that still run: another process may have the id of one that is gone.
            running = [pool for pool in self.started if pool.process.poll() is None]
            _end([*producers, *(pool.process for pool in running)])
            for pool in running:
                pool.signal_all(signal.SIGKILL)  # if anything of it is left
            if self.network:
                self.network.close()
        return judge(
            self._acknowledged(),
            states,
            held,
            self.ledger.runs,
            self.injector.faults,
            self.mishaps,
            self.ledger.callbacks,
            miscounted,
            [*taken, *sorted(self.orphaned)],
        )

    def known_ids(self) -> set[str]:
        """The ids of all jobs that were acknowledged or have run."""
        return self._acknowledged() | {run.job for run in self.ledger.runs}

    def batches(self) -> set[str]:
        """The ids of all batches that were sealed."""
        return set((self.folder / "batches").read_text().split())

    def _inject_faults(self) -> None:
        queues = fault_queues(self.random, self.plan.counts, redis_too=self.server is not None)
        ends = float("inf") if self.plan.is_counted else time.monotonic() + self.plan.seconds
        while time.monotonic() < ends and (any(queue.next for queue in queues) or self.injector.holds_up):
            self.ledger.catch_up()
            self.injector.update()
            for queue in queues:
                queue.offer(self.injector.inject)
            self._check_pools()
            if not self.injector.is_redis_away:
                self.orphaned |= job_states.orphaned(self.client)
            self.update(f"{len(self.ledger.runs):,} runs, {len(self.injector.faults)} faults")
            time.sleep(TICK)

    def _await_end(self) -> dict[str, State]:
        """The state of each acknowledged job when all have ended, or when the time to drain is over."""
        states: dict[str, State] = {}
        pending = self._acknowledged()
        deadline = time.monotonic() + DRAIN_SECONDS
        while time.monotonic() < deadline:
            now = job_states.states(self.client, pending)
            states |= now
            pending = {id for id, state in now.items() if state.status not in wire.ENDED}
            if not pending and not job_states.held(self.client):
                break
            self.update(f"waiting for the last {len(pending)} jobs")
            self._check_pools()
            time.sleep(TICK * 10)
        return states

    def _check_pools(self) -> None:
        """Replace pools that ended by themselves, and report pools that did not drain after SIGTERM."""
        for number, pool in enumerate(self.injector.pools):
            if pool.process.poll() is not None:
                self.mishaps.append(
                    f"a pool ended by itself with code {pool.process.returncode} ({pool.log})"
                )
                self.injector.pools[number] = self._start_pool()
        for pool, since in list(self.injector.leaving):
            code = pool.process.poll()
            if code is not None or time.monotonic() > since + GRACE + STOP_SECONDS:
                self.injector.leaving.remove((pool, since))
                if code != 0:
                    self.mishaps.append(f"a pool did not drain after SIGTERM: code {code} ({pool.log})")

    def _stop_pools(self) -> None:
        now = time.monotonic()
        for pool in self.injector.pools:
            if pool.children():  # a pool without processes has nothing to drain
                self.injector.leaving.append((pool, now))
            pool.process.terminate()
        self.injector.pools.clear()
        while self.injector.leaving:
            self.update(f"waiting for {len(self.injector.leaving)} pools to drain")
            self._check_pools()
            time.sleep(TICK)

    def _acknowledged(self) -> set[str]:
        return set((self.folder / "acknowledged").read_text().split())

    def _start_pool(self) -> WorkerPool:
        log = self.folder / f"pool-{len(self.started)}.log"
        link = self.network.link() if self.network else None
        pool = WorkerPool(self.plan.processes, self._environment(link.url if link else self.url), log, link)
        self.started.append(pool)
        return pool

    def _start_producer(self, number: int) -> subprocess.Popen[bytes]:
        rate = BUSY * self.plan.pools * self.plan.processes / MEAN_SECONDS / PRODUCERS
        words = [self.folder, number, rate, self.plan.seed + number]
        with (self.folder / f"producer-{number}.log").open("w") as output:
            return subprocess.Popen(  # noqa: S603  every argument is ours
                [sys.executable, "-m", "packmule.drill.load", *map(str, words)],
                env=self._environment(self.url),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C reaches only the drill, which then stops it
            )

    @property
    def url(self) -> str | None:
        """The server's address. Nobody but the drill starts its own server again after an outage."""
        return self.server.url if self.server else self.settings.redis_url

    def _environment(self, url: str | None) -> dict[str, str]:
        return child_environment(
            PACKMULE_REDIS_URL=url,
            REDIS_URL=None,
            PACKMULE_DATA_DIR=str(self.settings.data_dir.resolve()),
            PACKMULE_QUEUES=",".join(QUEUES),
            PACKMULE_MODULES="packmule.drill.job",
            PACKMULE_ALLOW=CALLBACK,
            PACKMULE_ENV="production",  # without a mail catcher
            PACKMULE_GRACE=str(GRACE),
            PACKMULE_STORAGE=str(self.folder / "files"),
            PACKMULE_TEMPLATES=None,
            PACKMULE_MAIL_URL=None,
        )


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    """Terminate processes, and kill those that do not end in time."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
