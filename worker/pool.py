"""The pool: a supervisor that keeps N worker processes alive, renews their leases and ends what overruns."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import secrets
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from resource import struct_rusage
from types import FrameType

from redis import Redis
from redis.exceptions import RedisError

from worker.death import certify, out_of_memory_kills
from worker.heartbeat import INTERVAL, Heartbeat
from worker.rescue import Verdict, rescue, rescue_expired
from worker.slot import Slot
from worker.worker import Worker

TICK = 0.25
OVERRUN_SECONDS = 1.0
"""A job this far past its timeout has ignored the exception in it, and is killed."""

QUICK_DEATH = 1.0
BACK_OFF_CAP = 10.0
NOTHING_RAN = "none"
STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT}

Task = Callable[[], None]

log = logging.getLogger("packmule.worker")


@dataclass
class Child:
    """A process of the pool: a worker with its slot, or a companion without one."""

    name: str
    pid: int
    slot: Slot | None
    started_at: float = field(default_factory=time.monotonic)
    told_to_stop: bool = False
    killed_as: tuple[Verdict, str] | None = None
    kills_before: int | None = field(default_factory=out_of_memory_kills)


class Pool:
    """Runs `processes` workers on `queues`, and beside them `companions`: tasks by name, one process each.

    `connect` makes a client; each process calls it for itself. `grace` is how long, in seconds, running jobs
    may go on after SIGTERM or SIGINT before they are given back; a second signal ends them at once.
    """

    def __init__(
        self,
        connect: Callable[[], Redis],
        queues: Sequence[str],
        processes: int,
        *,
        grace: float = 25.0,
        burst: bool = False,
        companions: Mapping[str, Task] | None = None,
        max_result_bytes: int = 1024 * 1024,
    ) -> None:
        self.connect = connect
        self.queues = queues
        self.processes = processes
        self.grace = grace
        self.burst = burst
        self.companions = companions or {}
        self.max_result_bytes = max_result_bytes
        self._children: dict[int, Child] = {}
        self._slots: dict[str, Slot] = {}
        self._quick_deaths = 0
        self._start_not_before = 0.0
        self._drained = 0
        self._stop_signals = 0
        self._stop_deadline = float("inf")
        self._clean = True

    def run(self) -> int:
        """Run until told to stop, with `burst` until the queues are empty. 0, or 1 if a job was cut short."""
        wake, waker = os.pipe()
        os.set_blocking(waker, False)
        os.set_blocking(wake, False)
        self._lifeline, self._life = os.pipe()
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, self._on_stop)
        signal.signal(signal.SIGCHLD, lambda signum, frame: None)
        self.client = self.connect()
        heartbeat = Heartbeat(self.client, self._slots)
        gc.freeze()  # what exists now is shared by all children for as long as nobody writes to it
        next_beat = 0.0
        while not self._is_done():
            self._start_missing()
            if time.monotonic() >= next_beat:
                self._beat(heartbeat)
                next_beat = time.monotonic() + INTERVAL
            select.select([wake], [], [], TICK)
            with contextlib.suppress(BlockingIOError):
                os.read(wake, 4096)
            self._kill_overrunning()
            self._stop_children()
            self._reap()
        return 0 if self._clean else 1

    def _is_done(self) -> bool:
        working = any(child.slot for child in self._children.values())
        if self.burst and not working and self._drained >= self.processes and not self._stop_signals:
            self._stop_signals = 1
        return self._stop_signals > 0 and not self._children

    def _start_missing(self) -> None:
        if self._stop_signals or time.monotonic() < self._start_not_before:
            return
        workers = sum(1 for child in self._children.values() if child.slot) + self._drained
        for _ in range(self.processes - workers):
            self._start_worker()
        running = {child.name for child in self._children.values()}
        for name, task in self.companions.items():
            if name not in running:
                self._fork(name, None, task)

    def _start_worker(self) -> None:
        name = f"{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(3)}"
        slot = Slot()

        def task() -> None:
            Worker(
                list(self.queues),
                name,
                self.connect(),
                slot=slot,
                lifeline=self._lifeline,
                max_result_bytes=self.max_result_bytes,
            ).work(burst=self.burst)

        self._slots[name] = slot
        self._fork(name, slot, task)

    def _fork(self, name: str, slot: Slot | None, task: Task) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        # Held back until the child has handlers of its own, so that no signal to stop is lost in between.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        pid = os.fork()
        if pid == 0:
            self._be_child(name, task)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        self._children[pid] = Child(name, pid, slot)
        log.info("%s: started, pid %d", name, pid)

    def _be_child(self, name: str, task: Task) -> None:
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
            os.close(self._life)
            task()
            code = 0
        except Exception:
            log.exception("%s: ended by an error", name)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _beat(self, heartbeat: Heartbeat) -> None:
        try:
            heartbeat.beat()
            for worker, rescued in rescue_expired(self.client).items():
                if rescued.back or rescued.failed:
                    log.warning("worker %s vanished: %d jobs back in their queues", worker, len(rescued.back))
        except RedisError as error:
            log.warning("no heartbeat: %s", error)

    def _kill_overrunning(self) -> None:
        for child in self._children.values():
            performing = child.slot.read() if child.slot and not child.killed_as else None
            if performing and time.monotonic() > performing.deadline + OVERRUN_SECONDS:
                seconds = performing.deadline - performing.started
                reason = f"the job ran on past its timeout of {seconds:g} s and was killed with its process"
                self._kill(child, "overran", reason)

    def _stop_children(self) -> None:
        """After a signal to stop: pass it on, and kill what goes on after the grace or a second signal."""
        if not self._stop_signals:
            return
        # Companions last, for a job that finishes may still need them.
        workers_left = any(child.slot for child in self._children.values())
        for child in self._children.values():
            if not child.told_to_stop and (child.slot or not workers_left):
                child.told_to_stop = True
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGTERM)
        if time.monotonic() < self._stop_deadline and self._stop_signals == 1:
            return
        for child in self._children.values():
            if not child.killed_as:
                self._kill(child, "returned", "")
                self._clean = self._clean and child.slot is None

    def _kill(self, child: Child, verdict: Verdict, reason: str) -> None:
        child.killed_as = (verdict, reason)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)

    def _reap(self) -> None:
        for pid, child in list(self._children.items()):
            ended, status, usage = os.wait4(pid, os.WNOHANG)
            if not ended:
                continue
            del self._children[pid]
            code = os.waitstatus_to_exitcode(status)
            if child.slot:
                self._bury(child, child.slot, code, usage)
            elif code and not self._stop_signals:
                log.warning("%s: ended with code %d; starting it again", child.name, code)
                self._back_off(child)

    def _bury(self, child: Child, slot: Slot, code: int, usage: struct_rusage) -> None:
        """Take note of a worker's end, and rescue what it held unless it left in order."""
        performing = slot.read()
        del self._slots[child.name]
        slot.close()
        if code == 0 and performing is None:
            self._drained += self.burst
            return
        certificate = certify(child.name, code, performing, usage, child.kills_before)
        verdict, reason = child.killed_as or ("died", certificate.cause)
        running = performing.execution if performing else NOTHING_RAN
        log.warning("%s: %s", child.name, reason or "stopped before its job had ended")
        try:
            rescue(self.client, child.name, verdict, reason, running, certificate=certificate)
        except RedisError as error:
            log.warning("%s: what it held waits for its lease to end: %s", child.name, error)
        if not child.killed_as:
            self._back_off(child)

    def _back_off(self, child: Child) -> None:
        """Start nothing for a while if children die as soon as they start."""
        if time.monotonic() - child.started_at > QUICK_DEATH:
            self._quick_deaths = 0
            return
        self._quick_deaths += 1
        pause = min(0.05 * 2**self._quick_deaths, BACK_OFF_CAP)
        self._start_not_before = time.monotonic() + pause

    def _on_stop(self, signum: int, frame: FrameType | None) -> None:
        self._stop_signals += 1
        if self._stop_signals == 1:
            self._stop_deadline = time.monotonic() + self.grace
