"""The drill's faults: how each is injected, and the worker pools that are their victims."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from random import Random

from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.drill.hits import Fault
from packmule.drill.ledger import Ledger
from packmule.drill.load import QUEUES
from packmule.drill.network import Link

OPTIONS = ("--no-scheduler", "--queue", ",".join(f"{queue}:1" for queue in QUEUES))
"""Queues of one weight: a job that goes back to the front of its queue waits for no backlog of another."""

SETTLED_SECONDS = 1.5
"""Seconds after its start in which a process is spared, because a pool backs off if one dies sooner."""

MOST_INTERRUPTIONS = 1
"""A job that was interrupted this often is spared: its third death would fail it, as promised."""

SHORT_FREEZE, LONG_FREEZE, CUT = (1.0, 4.0), (14.0, 16.0), (4.0, 10.0)
"""The least and most seconds: shorter than the lease, longer, and shorter again."""

CALM_SECONDS = 6.0
"""For this long after an outage no pool is held up: it could not renew its leases while all others do."""


class WorkerPool:
    """A `packmule worker` in its own process group, so that it can die as a whole, like a host."""

    def __init__(
        self, processes: int, environment: Mapping[str, str], log: Path, link: Link | None = None
    ) -> None:
        self.size = processes
        self.link = link
        self.started_at = time.monotonic()
        self.is_held_up = False
        with log.open("w") as output:
            self.process = subprocess.Popen(  # noqa: S603  every argument is ours
                [sys.executable, "-m", "packmule", "worker", "--processes", str(processes), *OPTIONS],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.pid = self.process.pid
        self.log = log

    def signal_all(self, signum: int) -> None:
        """Signal the supervisor and its processes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signum)

    def children(self) -> list[int]:
        """The process ids of its workers."""
        listed = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        try:
            return [int(pid) for pid in listed.read_text().split()]
        except FileNotFoundError:  # not Linux, or the pool is gone
            listing = subprocess.run(
                ["ps", "-A", "-o", "ppid=,pid="],  # noqa: S607  wherever the system keeps it
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            pairs = (line.split() for line in listing.splitlines())
            return [int(pid) for parent, pid in pairs if int(parent) == self.pid]


class FaultInjector:
    """Injects faults into pools, their processes and Redis, and records each in `faults`."""

    def __init__(
        self,
        start_pool: Callable[[], WorkerPool],
        ledger: Ledger,
        server: EmbeddedServer | None,
        random: Random,
    ) -> None:
        self.start_pool = start_pool
        self.ledger = ledger
        self.server = server
        self.random = random
        self.pools: list[WorkerPool] = []
        self.leaving: list[tuple[WorkerPool, float]] = []
        self.faults: list[Fault] = []
        self._thaws: list[tuple[float, Fault, Callable[[], None]]] = []
        self._seen: dict[int, float] = {}
        self._interruptions: Counter[str] = Counter()
        self.is_redis_away = False
        """Whether Redis is frozen or stopped now."""
        self._calm_until = 0.0

    def inject(self, kind: str) -> bool:
        """Inject a fault of `kind`; return False if it has no victim now."""
        verb, what = kind.split()
        if what == "redis":
            return self._hit_redis(kind)
        return self._hit_process(kind, verb) if what == "process" else self._hit_pool(kind, verb)

    @property
    def holds_up(self) -> bool:
        """Whether something is frozen, cut off or away now."""
        return bool(self._thaws)

    def update(self) -> None:
        """Record new processes, and thaw those whose freeze is over."""
        now = time.monotonic()
        for pool in self.pools:
            for pid in pool.children():
                self._seen.setdefault(pid, now)
        for thaw in [thaw for thaw in self._thaws if thaw[0] <= now]:
            self._thaw(*thaw)

    def thaw_all(self) -> None:
        """Thaw all that is frozen."""
        for thaw in list(self._thaws):
            self._thaw(*thaw)

    def _hit_process(self, kind: str, verb: str) -> bool:
        victims = [
            pid
            for pool in self.pools
            if not pool.is_held_up
            for pid in pool.children()
            if self._is_settled(pid)
        ]
        victims = [pid for pid in victims if not self._is_spared(pid)]
        busy = [pid for pid in victims if pid in self.ledger.running]
        if not victims:
            return False
        pid = self.random.choice(busy or victims)
        if verb == "freeze":
            self._freeze(kind, pid, lambda signum: _kill(pid, signum), SHORT_FREEZE)
        elif verb == "kill":
            self._count_interrupted([pid])
            self._record(kind, pid, lambda: _kill(pid, signal.SIGKILL))
        else:
            self._record(kind, pid, lambda: _kill(pid, signal.SIGTERM))
        del self._seen[pid]  # as if it were new: it is spared while it stops or is frozen
        return True

    def _hit_pool(self, kind: str, verb: str) -> bool:
        """Hit a pool, if another one is left that can take over."""
        fit = [pool for pool in self.pools if not pool.is_held_up and self._serves(pool)]
        victims = [pool for pool in fit if not any(map(self._is_spared, pool.children()))]
        if not victims or len(fit) == 1:
            return False
        pool = self.random.choice(victims)
        if verb in ("freeze", "cut") and (self.is_redis_away or time.monotonic() < self._calm_until):
            return False
        if verb == "cut":
            if pool.link:
                self._hold_up(kind, pool.pid, pool.link.cut, pool.link.restore, CUT, pool)
            return True
        if verb == "freeze":
            whole = kind == "freeze pool"
            self._count_interrupted(pool.children())
            seconds = self.random.choice((SHORT_FREEZE, LONG_FREEZE))
            send = pool.signal_all if whole else lambda signum: _kill(pool.pid, signum)
            self._freeze(kind, pool.pid, send, seconds, pool)
            return True
        self.pools[self.pools.index(pool)] = self.start_pool()
        if verb == "kill":
            self._count_interrupted(pool.children())
            self._record(kind, pool.pid, lambda: pool.signal_all(signal.SIGKILL))
            pool.process.wait()
        else:
            self._record(kind, pool.pid, pool.process.terminate)
            self.leaving.append((pool, time.monotonic()))
        return True

    def _hit_redis(self, kind: str) -> bool:
        """Hit Redis, unless it is away, or shall be while a pool is held up."""
        server = self.server
        is_long = kind in ("freeze redis", "stop redis")
        if not server or self.is_redis_away or (is_long and any(pool.is_held_up for pool in self.pools)):
            return server is None
        if is_long:
            self.is_redis_away = True
            frozen = server.pid() if kind == "freeze redis" else None
            take_away = server.stop if frozen is None else partial(_kill, frozen, signal.SIGSTOP)
            self._hold_up(kind, 0, take_away, partial(self._bring_back, server, frozen), LONG_FREEZE)
        else:
            self._record(kind, 0, partial(_restart, server, kind))
        return True

    def _bring_back(self, server: EmbeddedServer, frozen: int | None) -> None:
        if frozen is not None:
            _kill(frozen, signal.SIGCONT)
        server.ensure()
        self.is_redis_away = False
        self._calm_until = time.monotonic() + CALM_SECONDS

    def _record(self, kind: str, pid: int, act: Callable[[], None]) -> None:
        began = time.monotonic()
        act()
        self.faults.append(Fault(kind, pid, began, time.monotonic()))

    def _count_interrupted(self, pids: Iterable[int]) -> None:
        """Count an interruption of each job that runs in these processes, which are about to be killed."""
        self.ledger.catch_up()
        running = (self.ledger.running.get(pid) for pid in pids)
        self._interruptions.update(run.job for run in running if run)

    def _freeze(
        self,
        kind: str,
        pid: int,
        send: Callable[[int], None],
        seconds: tuple[float, float],
        pool: WorkerPool | None = None,
    ) -> None:
        self._hold_up(kind, pid, partial(send, signal.SIGSTOP), partial(send, signal.SIGCONT), seconds, pool)

    def _hold_up(
        self,
        kind: str,
        pid: int,
        begin: Callable[[], None],
        end: Callable[[], None],
        seconds: tuple[float, float],
        pool: WorkerPool | None = None,
    ) -> None:
        """Do `begin` now and `end` after some of these seconds."""
        self._record(kind, pid, begin)
        fault = self.faults[-1]
        fault.ended = float("inf")
        if pool:
            pool.is_held_up = True

        def thaw() -> None:
            end()
            if pool:
                pool.is_held_up = False

        self._thaws.append((fault.began + self.random.uniform(*seconds), fault, thaw))

    def _thaw(self, at: float, fault: Fault, thaw: Callable[[], None]) -> None:
        self._thaws.remove((at, fault, thaw))
        thaw()
        fault.ended = time.monotonic()

    def _serves(self, pool: WorkerPool) -> bool:
        return time.monotonic() - pool.started_at > SETTLED_SECONDS and len(pool.children()) > 0

    def _is_settled(self, pid: int) -> bool:
        return time.monotonic() - self._seen.get(pid, time.monotonic()) > SETTLED_SECONDS

    def _is_spared(self, pid: int) -> bool:
        run = self.ledger.running.get(pid)
        return run is not None and self._interruptions[run.job] >= MOST_INTERRUPTIONS


def _restart(server: EmbeddedServer, kind: str) -> None:
    pid = server.pid()
    if kind == "restart redis":
        server.stop()
    elif pid is not None:
        _kill(pid, signal.SIGKILL)
    server.ensure()


def _kill(pid: int, signum: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signum)
