"""The pool: a supervisor that keeps N worker processes alive, renews their leases and ends what overruns."""

from __future__ import annotations

import faulthandler
import gc
import logging
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from resource import struct_rusage
from types import FrameType

from redis import Redis
from rq.serializers import JSONSerializer

from packmule.coordination.readable import readable
from packmule.coordination.redis.backoff import BackOff
from packmule.coordination.redis.waiting import connect_when_up, impatient
from packmule.jobs.storage.temporary import remove_soon
from packmule.observe.vitals import Vitals
from packmule.worker import order, rescue
from packmule.worker.crash_report import report_crash
from packmule.worker.options import WorkerOptions
from packmule.worker.pool import child
from packmule.worker.pool.autoscale import Autoscale
from packmule.worker.pool.child import Child, Main
from packmule.worker.pool.dead_locks import DeadLocks
from packmule.worker.pool.drain import Drain
from packmule.worker.pool.duty import Guard
from packmule.worker.pool.enforcement import interrupt, kill_if_needed, obey
from packmule.worker.pool.rest import TICK, Rest
from packmule.worker.pool.upkeep import Death, Upkeep
from packmule.worker.process import claim, rq_current
from packmule.worker.process.worker import Worker
from packmule.worker.registration import Registration
from packmule.worker.scoreboard import Scoreboard
from packmule.worker.wake import WakePipe

QUICK_DEATH = 1.0
BACK_OFF_CAP = 10.0
log = logging.getLogger("packmule.worker")


class Pool:
    """Runs `processes` workers on `queues`, and one process for each of the named `companions`.

    `connect` makes a client; each process calls it for itself. After SIGTERM or SIGINT running jobs have
    `grace` seconds before they are given back; a second signal ends them at once. `queues` may carry weights
    (`["high:5", "low:1"]`). A process that leaves as its `options` say is replaced, unless it leaves because
    the queues are empty. `autoscale` is the fewest and the most processes. `lock_nodes` makes the clients of
    the nodes that keep the locks of singletons. `vitals` shows others what the pool has.
    """

    def __init__(
        self,
        connect: Callable[[], Redis],
        queues: Sequence[str],
        processes: int,
        options: WorkerOptions | None = None,
        *,
        grace: float = 25.0,
        companions: Mapping[str, Main] | None = None,
        autoscale: tuple[int, int] | None = None,
        lock_nodes: Callable[[], Sequence[Redis]] = tuple,
        vitals: Vitals | None = None,
    ) -> None:
        self.connect = connect
        self.vitals = vitals or Vitals()
        self.weights = order.parse(queues)
        self.processes = processes if autoscale is None else min(max(processes, autoscale[0]), autoscale[1])
        self.options = options or WorkerOptions()
        self.companions = companions or {}
        self.autoscale = autoscale
        self.lock_nodes = lock_nodes
        self._children: dict[int, Child] = {}
        self._guard = Guard()
        self._start_backoff = BackOff(0.1, BACK_OFF_CAP)
        self._start_not_before = 0.0
        self._drained = 0
        self._drain = Drain(grace)
        self._rest = Rest()
        self._wake = WakePipe()

    def run(self) -> int:
        """Run until told to stop, with `burst` until the queues are empty. 0, or 1 if a job was cut short."""
        client = impatient(connect_when_up(self.connect))
        self._lifeline, self._life = os.pipe()
        signal.set_wakeup_fd(self._wake.writer, warn_on_full_buffer=False)
        self._install_signal_handlers()
        self.upkeep = Upkeep(client, DeadLocks(lambda: self.lock_nodes() or [client]))
        scale = Autoscale(client, list(self.weights), *self.autoscale) if self.autoscale else None
        parts = {
            "start its processes": self._start_missing,
            "do its duties": self.upkeep.do_due,
            "scale": lambda: self._scale(scale),
            "show its state": self._show,
            "wait": self._wait,
            "obey commands": self._obey,
            "enforce deadlines": self._enforce,
            "stop its processes": self._stop,
            "reap its processes": self._reap,
        }
        claim.assemble()
        rescue.assemble()
        gc.freeze()  # what exists now is shared by all children as long as nobody writes to it
        while not self._is_done():
            for part, do in parts.items():
                with self._guard(part):
                    do()
        self.upkeep.close()
        self._drain.end()
        return 0 if self._drain.is_clean else 1

    def _show(self) -> None:
        registered = sum(each.scoreboard.is_registered for each in self._workers() if each.scoreboard)
        self.vitals.show(registered, self.processes, is_draining=self._drain.requests > 0)

    def _wait(self) -> None:
        """Wait until the next look, or until a signal, a command or the start of a job comes."""
        wanted = self.processes + len(self.companions)
        is_settled = len(self._children) == wanted and not self._drain.requests
        seconds = self._rest.seconds(self._workers(), is_settled, self.upkeep.due_in())
        try:
            readable([self._wake.reader, *self.upkeep.commands.sockets], seconds)
        except (OSError, ValueError):  # the connection to the commands is broken
            self.upkeep.commands.close()
            time.sleep(TICK)
        self._wake.drain()

    def _obey(self) -> None:
        for name, command in self.upkeep.commands.received():
            obey(self._workers(), name, command)

    def _install_signal_handlers(self) -> None:
        signal.signal(signal.SIGTERM, lambda signum, frame: self._drain.request())
        signal.signal(signal.SIGINT, lambda signum, frame: self._drain.request())
        signal.signal(signal.SIGCHLD, lambda signum, frame: None)
        signal.signal(signal.SIGTTIN, lambda signum, frame: self._resize(+1))
        signal.signal(signal.SIGTTOU, lambda signum, frame: self._resize(-1))
        signal.signal(signal.SIGQUIT, self._dump)

    def _is_done(self) -> bool:
        working = any(each.scoreboard for each in self._children.values())
        if (
            self.options.burst
            and not working
            and self._drained >= self.processes
            and not self._drain.requests
        ):
            self._drain.requests = 1
        return self._drain.requests > 0 and not self._children

    def _workers(self) -> list[Child]:
        return [each for each in self._children.values() if each.scoreboard]

    def _start_missing(self) -> None:
        if self._drain.requests:
            return
        for _ in range(self.processes - len(self._workers()) - self._drained):
            if time.monotonic() >= self._start_not_before:
                self._start_worker()
        running = {each.name for each in self._children.values()}
        for name, main in self.companions.items():
            if name not in running and time.monotonic() >= self._start_not_before:
                self._start(name, None, main)
        if not self.options.burst:
            going = [each for each in self._workers() if not each.stop_sent]
            for each in going[self.processes :]:
                each.stop_sent = True
                each.send(signal.SIGTERM)

    def _start_worker(self) -> None:
        name = f"{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(3)}"
        scoreboard = Scoreboard.of_worker(self.options.threads, self.options.tasks, self._wake.wake)

        def main() -> None:
            client, queues = connect_when_up(self.connect), list(self.weights)
            worker = Worker(
                client,
                name,
                queues,
                order.of(self.weights),
                self.options,
                Registration(client, name, queues, self.options.release, self.options.capacity),
                scoreboard,
                lifeline=self._lifeline,
                lock_nodes=self.lock_nodes(),
            )
            rq_current.install(client, name, JSONSerializer)
            remove_soon()
            worker.stop_by(signal.SIGTERM)
            worker.run()

        self.upkeep.scoreboards[name] = scoreboard
        self._start(name, scoreboard, main)

    def _start(self, name: str, scoreboard: Scoreboard | None, main: Main) -> None:
        try:
            started = child.start(name, scoreboard, main, self._life)
        except OSError as error:  # too many processes, or too little memory
            if scoreboard:
                self.upkeep.remove(name)
                scoreboard.close()
            self._start_not_before = time.monotonic() + self._start_backoff.next()
            log.warning("%s: can't be started: %s", name, error)
        else:
            self._children[started.pid] = started

    def _scale(self, scale: Autoscale | None) -> None:
        if scale is None or self._drain.requests or not self.upkeep.is_available:
            return
        busy = sum(1 for each in self._workers() if each.running())
        wanted = scale.wanted(self.processes, busy)
        if wanted != self.processes:
            self._resize(wanted - self.processes)

    def _resize(self, by: int) -> None:
        self.processes = max(1, self.processes + by)
        log.info("the pool wants %d processes", self.processes)

    def _enforce(self) -> None:
        """Interrupt and kill workers whose jobs must end, and mark and rescue the jobs of the others."""
        for each in self._workers():
            with self._guard(f"supervise {each.name}"):
                now, running = time.monotonic(), each.running()
                interrupt(each, running)
                kill_if_needed(each, running, self.options.max_memory)
                self.upkeep.mark(each.name, running, now)
                if each.scoreboard:
                    self.upkeep.rescue_stalled(each.name, each.scoreboard)
                if dump := each.dumped():
                    self.upkeep.store_stacks(each.name, dump)

    def _stop(self) -> None:
        if self._drain.requests:
            self._drain.stop(self._children.values())

    def _reap(self) -> None:
        """Handle children that ended, froze or continued, and reap a container's orphans."""
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
            ended.close()
            code = os.waitstatus_to_exitcode(status)
            if ended.scoreboard:
                with self._guard(f"rescue the jobs of {ended.name}"):
                    self._on_worker_exit(ended, ended.scoreboard, code, usage)
            elif code and not self._drain.requests:
                log.warning("%s: ended with code %d; starting it again", ended.name, code)
                self._back_off(ended)

    def _on_worker_exit(self, ended: Child, scoreboard: Scoreboard, code: int, usage: struct_rusage) -> None:
        """Handle a worker's end; rescue its jobs unless it left in order."""
        running, locks = scoreboard.read(), scoreboard.locks()
        self.upkeep.remove(ended.name)
        scoreboard.close()
        if code == 0 and not running:
            self._drained += self.options.burst and self.options.max_jobs is None
            return
        report = report_crash(ended.name, code, running[0] if running else None, usage, ended.kills_before)
        executions = [job.execution for job in running]
        verdict, reason, named = ended.killed_as or ("died", report.cause, executions)
        if reason or not ended.killed_as:
            jobs = "".join(f" (job {job.id})" for job in running if job.execution in named)
            log.error("%s: %s%s", ended.name, reason, jobs)
        self.upkeep.rescue(ended.name, Death(verdict, reason, named, report), locks)
        if not ended.killed_as and not running:
            self._back_off(ended)

    def _back_off(self, ended: Child) -> None:
        """Pause before the next start if children die as soon as they start."""
        if time.monotonic() - ended.started_at > QUICK_DEATH:
            self._start_backoff.reset()
        else:
            self._start_not_before = time.monotonic() + self._start_backoff.next()

    def _dump(self, signum: int, frame: FrameType | None) -> None:
        """Write the stacks of all processes to standard error."""
        faulthandler.dump_traceback(all_threads=True)
        for each in self._workers():
            each.send(signal.SIGQUIT)
