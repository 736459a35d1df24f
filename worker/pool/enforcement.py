"""Enforcement: the pool interrupts jobs that must end, kills workers that go on, and obeys commands."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable

from packmule.jobs import stacks
from packmule.worker.commands import Command
from packmule.worker.deadlines import LOOK
from packmule.worker.kernel import resident_memory
from packmule.worker.pool.child import Child
from packmule.worker.scoreboard import ISOLATED, RunningJob, shown_id
from packmule.worker.subprocesses import kill_tree

FROZEN_SECONDS = 10.0
"""A process that a signal has stopped for this long is as good as dead: its jobs go elsewhere."""

MEMORY_FACTOR = 2
"""A process leaves after its job once it uses `max_memory`. At this many times that it is killed at once."""


def interrupt(worker: Child, running: list[RunningJob]) -> None:
    """Tell a worker to check its jobs if one of them is overdue or was asked to stop."""
    if worker.deadlines.tell(running):
        worker.send(LOOK)


def kill_if_needed(worker: Child, running: list[RunningJob], max_memory: int | None) -> None:
    """Kill a worker that is frozen, uses too much memory, or whose job goes on after it was interrupted.

    An isolated job's process is killed alone.
    """
    judgement = worker.deadlines.judge(running)
    if judgement and judgement.is_isolated and worker.scoreboard and worker.scoreboard.isolated:
        now = worker.scoreboard.read_one(ISOLATED)
        if now and now.execution == judgement.execution:
            kill_tree(worker.scoreboard.isolated)
    elif judgement:
        worker.kill(judgement.verdict, judgement.reason, [judgement.execution])
    if worker.stopped_at and time.monotonic() > worker.stopped_at + FROZEN_SECONDS:
        worker.kill("returned", "the process was frozen", [])
    if max_memory and (used := resident_memory(worker.pid)) > MEMORY_FACTOR * max_memory:
        worker.kill(
            "overran", f"the job's process used {used >> 20} MiB and was killed", _executions(running)
        )


def obey(workers: Iterable[Child], name: str, command: Command) -> None:
    """Do what a command to the worker called `name` asks, if it is one of `workers`."""
    worker = next((each for each in workers if each.name == name), None)
    if worker is None:
        return
    running = worker.running()
    match command.command:
        case "shutdown":
            worker.send(signal.SIGTERM)
        case "wake-up":
            worker.send(LOOK)
        case stacks.COMMAND:
            worker.dump_stacks()
        case "kill-horse" if running:
            worker.kill("overran", "the job's process was killed by a command", _executions(running))
        case "stop-job" if worker.scoreboard:
            for job in running:
                if job.id == shown_id(command.job_id):
                    worker.scoreboard.request_stop(job)


def _executions(running: list[RunningJob]) -> list[str]:
    return [job.execution for job in running]
