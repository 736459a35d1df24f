"""The drill's faults: whom they strike and how, and the pools that they strike."""

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
from packmule.drill.ledger import Fault, Ledger

SETTLED_SECONDS = 1.5
"""A process is left alone for so long after its start: a pool pauses when one dies sooner."""

MOST_INTERRUPTIONS = 1
"""A job interrupted so often is spared from then on: its third death would fail it, as promised, and a pool
that is gone counts as one death for all that it had claimed, begun or not."""

SHORT_FREEZE, LONG_FREEZE = (1.0, 4.0), (12.0, 14.0)
"""Seconds, from and to: within the lease, and beyond it."""


class WorkerPool:
    """One `packmule worker` in a process group of its own, so that all of it can die as a host does."""

    def __init__(self, processes: int, environment: Mapping[str, str], log: Path) -> None:
        self.size = processes
        self.started_at = time.monotonic()
        self.frozen = False
        with log.open("w") as output:
            self.process = subprocess.Popen(  # noqa: S603  every word of it is ours
                [sys.executable, "-m", "packmule", "worker", "--processes", str(processes), "--no-scheduler"],
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
        except FileNotFoundError:  # another system than Linux, or the pool is gone
            listing = subprocess.run(
                ["ps", "-A", "-o", "ppid=,pid="],  # noqa: S607  wherever the system keeps it
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            pairs = (line.split() for line in listing.splitlines())
            return [int(pid) for parent, pid in pairs if int(parent) == self.pid]


class Breaker:
    """Strikes pools, their processes and Redis, and keeps a list of what it did."""

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

    def strike(self, kind: str) -> bool:
        """Do a fault of `kind`; False if there is nobody whom it may strike now."""
        verb, what = kind.split()
        if what == "redis":
            self._strike_redis(kind)
            return True
        return self._strike_process(kind, verb) if what == "process" else self._strike_pool(kind, verb)

    def look(self) -> None:
        """Take note of new processes, and wake those whose freeze is over."""
        now = time.monotonic()
        for pool in self.pools:
            for pid in pool.children():
                self._seen.setdefault(pid, now)
        for thaw in [thaw for thaw in self._thaws if thaw[0] <= now]:
            self._thaw(*thaw)

    def thaw_all(self) -> None:
        """Wake whoever is frozen."""
        for thaw in list(self._thaws):
            self._thaw(*thaw)

    def _strike_process(self, kind: str, verb: str) -> bool:
        victims = [
            pid for pool in self.pools if not pool.frozen for pid in pool.children() if self._is_settled(pid)
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
            self._note(kind, pid, lambda: _kill(pid, signal.SIGKILL))
        else:
            self._note(kind, pid, lambda: _kill(pid, signal.SIGTERM))
        del self._seen[pid]  # as if new: what is stopping or frozen is left alone for a while
        return True

    def _strike_pool(self, kind: str, verb: str) -> bool:
        """Strike a pool if another one stays that can take over."""
        fit = [pool for pool in self.pools if not pool.frozen and self._serves(pool)]
        victims = [pool for pool in fit if not any(map(self._is_spared, pool.children()))]
        if not victims or len(fit) == 1:
            return False
        pool = self.random.choice(victims)
        if verb == "freeze":
            whole = kind == "freeze pool"
            pool.frozen = True
            self._count_interrupted(pool.children())
            seconds = self.random.choice((SHORT_FREEZE, LONG_FREEZE))
            send = pool.signal_all if whole else lambda signum: _kill(pool.pid, signum)
            self._freeze(kind, pool.pid, send, seconds, pool)
            return True
        self.pools[self.pools.index(pool)] = self.start_pool()
        if verb == "kill":
            self._count_interrupted(pool.children())
            self._note(kind, pool.pid, lambda: pool.signal_all(signal.SIGKILL))
            pool.process.wait()
        else:
            self._note(kind, pool.pid, pool.process.terminate)
            self.leaving.append((pool, time.monotonic()))
        return True

    def _strike_redis(self, kind: str) -> None:
        def restart(server: EmbeddedServer) -> None:
            pid = server.pid()
            if kind == "restart redis":
                server.stop()
            elif pid is not None:
                _kill(pid, signal.SIGKILL)
            server.ensure()

        if self.server:
            self._note(kind, 0, partial(restart, self.server))

    def _note(self, kind: str, pid: int, strike: Callable[[], None]) -> None:
        began = time.monotonic()
        strike()
        self.faults.append(Fault(kind, pid, began, time.monotonic()))

    def _count_interrupted(self, pids: Iterable[int]) -> None:
        """Take note of the jobs that these processes, about to be killed, are running."""
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
        self._note(kind, pid, lambda: send(signal.SIGSTOP))
        fault = self.faults[-1]
        fault.ended = float("inf")

        def wake() -> None:
            send(signal.SIGCONT)
            if pool:
                pool.frozen = False

        self._thaws.append((fault.began + self.random.uniform(*seconds), fault, wake))

    def _thaw(self, at: float, fault: Fault, wake: Callable[[], None]) -> None:
        self._thaws.remove((at, fault, wake))
        wake()
        fault.ended = time.monotonic()

    def _serves(self, pool: WorkerPool) -> bool:
        return time.monotonic() - pool.started_at > SETTLED_SECONDS and len(pool.children()) > 0

    def _is_settled(self, pid: int) -> bool:
        return time.monotonic() - self._seen.get(pid, time.monotonic()) > SETTLED_SECONDS

    def _is_spared(self, pid: int) -> bool:
        run = self.ledger.running.get(pid)
        return run is not None and self._interruptions[run.job] >= MOST_INTERRUPTIONS


def _kill(pid: int, signum: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signum)
