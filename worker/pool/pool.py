"""The pool: a supervisor that keeps N worker processes alive, renews their leases and ends what overruns."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import logging
import os
import secrets
import select
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from resource import struct_rusage
from types import FrameType

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, RedisError, ResponseError
from redis.retry import Retry

from packmule.coordination.redis.backoff import BackOff, is_transient
from packmule.worker import order
from packmule.worker.commands import Command, Commands
from packmule.worker.crash_report import CrashReport, report_crash
from packmule.worker.deadlines import LOOK
from packmule.worker.dependents import enqueue_forgotten
from packmule.worker.heartbeat import INTERVAL, Heartbeat
from packmule.worker.kernel import resident_memory
from packmule.worker.pool import child, stalled
from packmule.worker.pool.autoscale import Autoscale
from packmule.worker.pool.child import Child, Main
from packmule.worker.process.claim import MOST
from packmule.worker.process.worker import Worker
from packmule.worker.rescue import Verdict, rescue, rescue_expired, server_time
from packmule.worker.scoreboard import RunningJob, Scoreboard
from packmule.worker.started import Marks

TICK = 0.04
QUICK_DEATH = 1.0
BACK_OFF_CAP = 10.0
NOTHING_RAN = "none"
ANSWER_SECONDS = 1.0
"""How long a pool waits for Redis: while it does, it looks after nothing else."""

FROZEN_SECONDS = 10.0
"""A process that has been stopped by a signal for this long is as good as dead: its jobs go elsewhere."""

RESCUE_INTERVAL = 1.0
"""Seconds between two looks for leases that ended: how much longer a vanished singleton keeps others out."""

MEMORY_FACTOR = 2
"""A process that leaves at its `max_memory` is killed, in the midst of a job, at so many times that."""

log = logging.getLogger("packmule.worker")


class Pool:
    """Runs `processes` workers on `queues`, and beside them `companions`: functions by name, one process
    each.

    `connect` makes a client; each process calls it for itself. `grace` is how long, in seconds, running jobs
    may go on after SIGTERM or SIGINT before they are given back; a second signal ends them at once.
    `queues` may carry weights (`["high:5", "low:1"]`). A process leaves, and another starts, after `max_jobs`
    jobs or when it uses `max_memory` bytes. `autoscale` is the least and the most processes. `threads`,
    `tasks`, `most` and what `lock_nodes` makes are the worker's.
    """

    def __init__(
        self,
        connect: Callable[[], Redis],
        queues: Sequence[str],
        processes: int,
        *,
        grace: float = 25.0,
        burst: bool = False,
        companions: Mapping[str, Main] | None = None,
        max_result_bytes: int = 1024 * 1024,
        threads: int = 1,
        tasks: int = 100,
        most: int = MOST,
        max_jobs: int | None = None,
        max_memory: int | None = None,
        autoscale: tuple[int, int] | None = None,
        lock_nodes: Callable[[], Sequence[Redis]] = tuple,
    ) -> None:
        self.connect = connect
        self.weights = order.parse(queues)
        self.processes = processes if autoscale is None else min(max(processes, autoscale[0]), autoscale[1])
        self.grace = grace
        self.burst = burst
        self.companions = companions or {}
        self.max_result_bytes = max_result_bytes
        self.threads = threads
        self.tasks = tasks
        self.most = most
        self.max_jobs = max_jobs
        self.max_memory = max_memory
        self.autoscale = autoscale
        self.lock_nodes = lock_nodes
        self._children: dict[int, Child] = {}
        self._scoreboards: dict[str, Scoreboard] = {}
        self._dead: dict[str, tuple[Verdict, str, list[str], CrashReport]] = {}
        self._start_backoff = BackOff(0.1, BACK_OFF_CAP)
        self._start_not_before = 0.0
        self._drained = 0
        self._stop_signals = 0
        self._stop_deadline = float("inf")
        self._clean = True
        self._is_heard = False
        self._clock = 0.0

    def run(self) -> int:
        """Run until told to stop, with `burst` until the queues are empty. 0, or 1 if a job was cut short."""
        wake, waker = os.pipe()
        os.set_blocking(waker, False)
        os.set_blocking(wake, False)
        self._lifeline, self._life = os.pipe()
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        self._install_signal_handlers()
        self.client = self._impatient_client()
        self.commands = Commands(self.client)
        scale = Autoscale(self.client, list(self.weights), *self.autoscale) if self.autoscale else None
        heartbeat = Heartbeat(self.client, self._scoreboards)
        self.marks = Marks(self.client)
        gc.freeze()  # what exists now is shared by all children for as long as nobody writes to it
        next_beat = next_look = 0.0
        while not self._is_done():
            self._start_missing()
            if time.monotonic() >= next_beat:
                self._beat(heartbeat)
                next_beat = time.monotonic() + INTERVAL
                next_look = time.monotonic() + RESCUE_INTERVAL
            elif self._is_heard and time.monotonic() >= next_look:
                self._rescue_vanished()
                next_look = time.monotonic() + RESCUE_INTERVAL
            if scale and not self._stop_signals:
                self._scale(scale)
            select.select([wake, *self.commands.sockets], [], [], TICK)
            with contextlib.suppress(BlockingIOError):
                os.read(wake, 4096)
            for worker, command in self.commands.received():
                self._obey(worker, command)
            self._enforce()
            self._stop_children()
            self._reap()
        self.commands.close()
        return 0 if self._clean else 1

    def _impatient_client(self) -> Redis:
        client = self.connect()
        client.connection_pool.connection_kwargs.update(
            socket_timeout=ANSWER_SECONDS,
            socket_connect_timeout=ANSWER_SECONDS,
            retry=Retry(NoBackoff(), 1, (ConnectionError,)),
        )
        return client

    def _install_signal_handlers(self) -> None:
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, self._on_stop)
        signal.signal(signal.SIGCHLD, lambda signum, frame: None)
        signal.signal(signal.SIGTTIN, lambda signum, frame: self._resize(+1))
        signal.signal(signal.SIGTTOU, lambda signum, frame: self._resize(-1))
        signal.signal(signal.SIGQUIT, self._dump)

    def _is_done(self) -> bool:
        working = any(each.scoreboard for each in self._children.values())
        if self.burst and not working and self._drained >= self.processes and not self._stop_signals:
            self._stop_signals = 1
        return self._stop_signals > 0 and not self._children

    def _workers(self) -> list[Child]:
        return [each for each in self._children.values() if each.scoreboard]

    def _start_missing(self) -> None:
        if self._stop_signals or time.monotonic() < self._start_not_before:
            return
        for _ in range(self.processes - len(self._workers()) - self._drained):
            self._start_worker()
        running = {each.name for each in self._children.values()}
        for name, main in self.companions.items():
            if name not in running:
                self._start(name, None, main)
        if not self.burst:
            going = [each for each in self._workers() if not each.told_to_stop]
            for each in going[self.processes :]:
                each.told_to_stop = True
                each.send(signal.SIGTERM)

    def _start_worker(self) -> None:
        name = f"{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(3)}"
        scoreboard = Scoreboard.of_worker(self.threads, self.tasks)

        def main() -> None:
            Worker(
                list(self.weights),
                name,
                self.connect(),
                scoreboard=scoreboard,
                lifeline=self._lifeline,
                serve=order.of(self.weights),
                threads=self.threads,
                tasks=self.tasks,
                most=self.most,
                max_memory=self.max_memory,
                max_result_bytes=self.max_result_bytes,
                lock_nodes=self.lock_nodes(),
            ).work(burst=self.burst, max_jobs=self.max_jobs)

        self._scoreboards[name] = scoreboard
        self._start(name, scoreboard, main)

    def _start(self, name: str, scoreboard: Scoreboard | None, main: Main) -> None:
        started = child.start(name, scoreboard, main, self._life)
        self._children[started.pid] = started

    def _beat(self, heartbeat: Heartbeat) -> None:
        try:
            self._is_heard = False
            heartbeat.beat()
            self._is_heard = True
            self._clock = server_time(self.client) - time.monotonic()
            self.commands.listen(set(self._scoreboards))
            enqueue_forgotten(self.client)
            self._rescue_dead()
        except (RedisError, OSError) as error:
            self.commands.close()
            self._is_heard = False
            log.warning("no heartbeat: %s", error)
        else:
            self._rescue_vanished()

    def _rescue_vanished(self) -> None:
        """Give back what workers held whose lease has ended, wherever they were."""
        try:
            for worker, rescued in rescue_expired(self.client, self._clock + time.monotonic()).items():
                if rescued.back or rescued.failed:
                    log.warning("worker %s vanished: %d jobs back in their queues", worker, len(rescued.back))
        except (RedisError, OSError) as error:
            self._is_heard = False
            log.warning("vanished workers can't be seen: %s", error)

    def _scale(self, scale: Autoscale) -> None:
        busy = sum(1 for each in self._workers() if each.running())
        try:
            wanted = scale.wanted(self.processes, busy)
        except RedisError as error:
            log.warning("the queues' depths can't be seen: %s", error)
            return
        if wanted != self.processes:
            self._resize(wanted - self.processes)

    def _resize(self, by: int) -> None:
        self.processes = max(1, self.processes + by)
        log.info("the pool wants %d processes", self.processes)

    def _obey(self, worker: str, command: Command) -> None:
        """Do what was published to a worker of ours."""
        for each in self._workers():
            if each.name != worker:
                continue
            running = each.running()
            if command.command == "shutdown":
                each.send(signal.SIGTERM)
            elif command.command == "wake-up":
                each.send(LOOK)
            elif command.command == "kill-horse" and running:
                named = [job.execution for job in running]
                each.kill("overran", "the job's process was killed by a command", named)
            elif command.command == "stop-job" and each.scoreboard:
                for job in running:
                    if job.id == command.job_id:
                        each.scoreboard.request_stop(job)

    def _enforce(self) -> None:
        """Tell workers of jobs that are overdue or asked to stop, and kill those in which one goes on."""
        for each in self._workers():
            running = each.running()
            if each.deadlines.tell(running):
                each.send(LOOK)
            self._mark(each, running)
            self._rescue_stalled(each)
            if judgement := each.deadlines.judge(running):
                each.kill(judgement.verdict, judgement.reason, [judgement.execution])
            if each.stopped_at and time.monotonic() > each.stopped_at + FROZEN_SECONDS:
                each.kill("returned", "the process was frozen", [])
            if self.max_memory and (used := resident_memory(each.pid)) > MEMORY_FACTOR * self.max_memory:
                named = [job.execution for job in running]
                each.kill("overran", f"the job's process used {used >> 20} MiB and was killed", named)

    def _mark(self, each: Child, running: list[RunningJob]) -> None:
        """Let long jobs be seen as started, unless the last heartbeat found Redis away."""
        if self._is_heard:
            try:
                self.marks.mark(each.name, running)
            except RedisError:
                self._is_heard = False

    def _rescue_stalled(self, each: Child) -> None:
        """Return what a worker holds back that can't do it itself."""
        if self._is_heard and each.scoreboard and stalled.is_stalled(each.scoreboard):
            try:
                stalled.give_back(self.client, each.name, each.scoreboard)
            except RedisError:
                self._is_heard = False

    def _stop_children(self) -> None:
        """After a signal to stop: pass it on, and kill what goes on after the grace or a second signal."""
        if not self._stop_signals:
            return
        # Companions last, for a job that finishes may still need them.
        workers_left = bool(self._workers())
        for each in self._children.values():
            if not each.told_to_stop and (each.scoreboard or not workers_left):
                each.told_to_stop = True
                each.send(signal.SIGTERM)
                each.send(signal.SIGCONT)
        if time.monotonic() < self._stop_deadline and self._stop_signals == 1:
            return
        for each in self._children.values():
            if not each.killed_as:
                each.kill("returned", "", [])
                self._clean = self._clean and each.scoreboard is None

    def _reap(self) -> None:
        """Take note of children that ended, froze or went on, and of a container's orphans."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
            except ChildProcessError:
                return
            if not pid:
                return
            ended = self._children.get(pid)
            if ended is None:
                continue
            if os.WIFSTOPPED(status) or os.WIFCONTINUED(status):
                ended.stopped_at = time.monotonic() if os.WIFSTOPPED(status) else None
                continue
            del self._children[pid]
            code = os.waitstatus_to_exitcode(status)
            if ended.scoreboard:
                self._on_worker_exit(ended, ended.scoreboard, code, usage)
            elif code and not self._stop_signals:
                log.warning("%s: ended with code %d; starting it again", ended.name, code)
                self._back_off(ended)

    def _on_worker_exit(self, ended: Child, scoreboard: Scoreboard, code: int, usage: struct_rusage) -> None:
        """Take note of a worker's end, and rescue what it held unless it left in order."""
        running = scoreboard.read()
        del self._scoreboards[ended.name]
        self.marks.forget(ended.name)
        scoreboard.close()
        if code == 0 and not running:
            self._drained += self.burst and self.max_jobs is None
            return
        report = report_crash(ended.name, code, running[0] if running else None, usage, ended.kills_before)
        executions = [job.execution for job in running] or [NOTHING_RAN]
        verdict, reason, named = ended.killed_as or ("died", report.cause, executions)
        log.warning("%s: %s", ended.name, reason or "stopped before its job had ended")
        self._dead[ended.name] = verdict, reason, named or [NOTHING_RAN], report
        try:
            self._rescue_dead()
        except RedisError as error:
            log.warning("%s: what it held waits for redis, or its lease's end: %s", ended.name, error)
        if not ended.killed_as and not running:
            self._back_off(ended)

    def _rescue_dead(self) -> None:
        """Give back what dead workers held. Raises what redis-py does; call it again then."""
        for name, (verdict, reason, executions, report) in list(self._dead.items()):
            try:
                rescue(self.client, name, verdict, reason, executions, report=report)
            except ResponseError as error:
                if is_transient(error):
                    raise
                log.error("%s: what it held can't be given back: %s", name, error)
            del self._dead[name]

    def _back_off(self, ended: Child) -> None:
        """Start nothing for a while if children die as soon as they start, before they have a job."""
        if time.monotonic() - ended.started_at > QUICK_DEATH:
            self._start_backoff.reset()
        else:
            self._start_not_before = time.monotonic() + self._start_backoff.next()

    def _dump(self, signum: int, frame: FrameType | None) -> None:
        """Write the stacks of all processes to standard error."""
        faulthandler.dump_traceback(all_threads=True)
        for each in self._workers():
            each.send(signal.SIGQUIT)

    def _on_stop(self, signum: int, frame: FrameType | None) -> None:
        self._stop_signals += 1
        if self._stop_signals == 1:
            self._stop_deadline = time.monotonic() + self.grace
