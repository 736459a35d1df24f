"""A process of a pool: how it starts, and what the pool remembers of it."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from packmule.coordination.redis.backoff import outage
from packmule.jobs.stacks import StackDump
from packmule.worker.deadlines import LOOK, Deadlines
from packmule.worker.kernel import die_with_parent, out_of_memory_kills
from packmule.worker.pool.dumping import Dumping
from packmule.worker.rescue import Verdict
from packmule.worker.scoreboard import RunningJob, Scoreboard
from packmule.worker.stacks import Stacks
from packmule.worker.subprocesses import kill_tree

Main = Callable[[], None]
"""What a process does until it exits."""

HELD_BACK = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGTTIN, signal.SIGTTOU, LOOK}

log = logging.getLogger("packmule.worker")


@dataclass
class Child:
    """A process of the pool: a worker, or a companion, which has no scoreboard."""

    name: str
    pid: int
    scoreboard: Scoreboard | None
    stacks: Stacks | None = None
    started_at: float = field(default_factory=time.monotonic)
    stopped_at: float | None = None
    """When a SIGSTOP froze it."""
    stop_sent: bool = False
    killed_as: tuple[Verdict, str, list[str]] | None = None
    """The verdict on its jobs, the reason, and the executions to which it applies."""
    kills_before: int | None = field(default_factory=out_of_memory_kills)
    deadlines: Deadlines = field(default_factory=Deadlines)
    dumping: Dumping | None = None
    """The dump of its stacks that is under way."""

    def running(self) -> list[RunningJob]:
        """The jobs that run there now."""
        return self.scoreboard.read() if self.scoreboard else []

    def dump_stacks(self) -> None:
        """Let it begin to write its stacks, unless it does so already."""
        if self.stacks and not self.dumping:
            self.dumping = Dumping(self.stacks, self.pid, tuple(job.id for job in self.running()))

    def dumped(self) -> StackDump | None:
        """The dump that was under way and is done."""
        if self.dumping and (found := self.dumping.look()):
            self.dumping = None
            return found
        if self.stacks and not self.dumping:
            self.stacks.bound()
        return None

    def close(self) -> None:
        """Release what the pool holds of a process that has ended."""
        self.dumping = None
        if self.stacks:
            self.stacks.close()

    def send(self, signum: int) -> None:
        """Send it a signal, if it exists."""
        try:
            os.kill(self.pid, signum)
        except ProcessLookupError:
            return  # it has ended, and the pool is about to reap it

    def kill(self, verdict: Verdict, reason: str, executions: list[str]) -> None:
        """Kill it once, with all that descends from it, and remember why."""
        if not self.killed_as:
            self.killed_as = verdict, reason, executions
            kill_tree(self.pid)


def start(name: str, scoreboard: Scoreboard | None, main: Main, life: int) -> Child:
    """Fork a process for `main`. It closes `life`, the pool's end of the lifeline, and dies with the pool.

    Raises `OSError` if the system refuses another process.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    stacks = Stacks() if scoreboard else None
    # Signals wait until the child has handlers of its own, so that none is lost in between.
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
    try:
        pid = os.fork()
        if pid == 0:
            _be_child(name, main, life, parent, stacks)
    except OSError:
        if stacks:
            stacks.close()
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)
    log.info("%s: started, pid %d", name, pid)
    return Child(name, pid, scoreboard, stacks)


def _be_child(name: str, main: Main, life: int, parent: int, stacks: Stacks | None) -> None:
    code = 1
    try:
        die_with_parent(parent)
        outage.level = logging.DEBUG  # the pool says it
        signal.set_wakeup_fd(-1)
        for signum in (signal.SIGCHLD, signal.SIGTERM, signal.SIGQUIT, signal.SIGTTIN, signal.SIGTTOU):
            signal.signal(signum, signal.SIG_DFL)
        for signum in (signal.SIGINT, signal.SIGHUP):  # a terminal sends them to the pool, too
            signal.signal(signum, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)
        os.close(life)
        if stacks:
            stacks.answer()
        main()
        code = 0
    except Exception:
        log.exception("%s: ended with an error", name)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
