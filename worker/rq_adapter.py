"""RQ's side of a worker: RQ's options, commands and maintenance around a worker process of ours."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from types import FrameType
from typing import Any, ClassVar

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import RedisError
from rq.defaults import DEFAULT_LOGGING_DATE_FORMAT, DEFAULT_LOGGING_FORMAT, DEFAULT_RESULT_TTL
from rq.job import Job
from rq.logutils import setup_loghandlers
from rq.queue import Queue
from rq.serializers import JSONSerializer
from rq.utils import now
from rq.worker import BaseWorker, DequeueStrategy, WorkerStatus

from packmule.jobs.interrupts import Interrupted, Killed
from packmule.worker import order
from packmule.worker.commands import command_of
from packmule.worker.dependents import enqueue_dependents_of
from packmule.worker.heartbeat import Heartbeat, HeartbeatThread
from packmule.worker.options import WorkerOptions
from packmule.worker.process import rq_current, rq_path
from packmule.worker.process.claimed import Claimed
from packmule.worker.process.outcome import Outcome
from packmule.worker.process.performer import Performer
from packmule.worker.process.rq_path import BREAKS
from packmule.worker.process.worker import Worker as WorkerProcess
from packmule.worker.scoreboard import Scoreboard
from packmule.worker.trusting import TrustAll

ECHO_SECONDS = 1.0
"""A second signal that comes sooner is the first one's echo: a terminal and a parent both pass Ctrl-C on."""

log = logging.getLogger("packmule.worker")


class Worker(BaseWorker):
    """A worker without a pool, as `rq worker --worker-class packmule.worker.Worker` runs it.

    Around a worker process of ours it does what a pool would do: it renews the lease, marks jobs, watches
    their deadlines, and receives RQ's commands. `lock_nodes` keep the locks of singletons, by default the job
    server does. Other options are RQ's.
    """

    trusts_all: ClassVar[bool] = False
    """A subclass may set this to perform whatever RQ would, even pickles and unregistered functions. Anyone
    who can enqueue can then run any code here."""

    process: WorkerProcess

    def __init__(
        self,
        queues: Any,
        name: str | None = None,
        connection: Redis | None = None,
        *,
        options: WorkerOptions | None = None,
        lock_nodes: Sequence[Redis] = (),
        **rq_options: Any,
    ) -> None:
        if rq_options.get("serializer") is None and not self.trusts_all:
            rq_options["serializer"] = JSONSerializer
        super().__init__(queues, name=name, connection=connection, **rq_options)
        self.options = options or WorkerOptions()
        self.lock_nodes = lock_nodes

    def work(
        self,
        burst: bool = False,
        logging_level: str | None = None,
        date_format: str = "",
        log_format: str = "",
        max_jobs: int | None = None,
        max_idle_time: int | None = None,
        with_scheduler: bool = False,
        dequeue_strategy: DequeueStrategy = DequeueStrategy.DEFAULT,
    ) -> bool:
        """Perform jobs until told to stop, with `burst` until the queues are empty; whether it did any.

        The signature is RQ's. `with_scheduler` runs RQ's scheduler beside it, and a `dequeue_strategy` other
        than the default makes it claim jobs one by one. Raises `SystemExit` when it was told to stop twice.
        """
        _set_up_logging(logging_level, date_format, log_format)
        options = replace(self.options, burst=burst, max_jobs=max_jobs, max_idle=max_idle_time)
        serve = self._order_of(DequeueStrategy(dequeue_strategy))
        scoreboard = Scoreboard.of_worker(options.threads, options.tasks)
        self._told_to_stop_at: float | None = None
        self._stops_at_once = False
        self.process = WorkerProcess(
            self.connection,
            self.name,
            self.queue_names(),
            serve,
            options if isinstance(serve, order.Strict) else replace(options, most=1),
            _Registration(self, burst, with_scheduler, scoreboard),
            scoreboard,
            lock_nodes=self.lock_nodes,
            lookup=TrustAll(self.serializer) if self.trusts_all else None,
            enqueue_dependents=partial(enqueue_dependents_of, self.queues[0], self.job_class),
            perform_by_rq=self.perform_by_rq,
            all_by_rq=self._all_by_rq,
        )
        rq_current.install(self.connection, self.serializer)
        self.process.stop_by()
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, self._on_signal)
        performed = self.process.run()
        if self._stops_at_once:
            raise SystemExit
        return performed > 0

    def perform_by_rq(self, job: Claimed, performer: Performer) -> Outcome:
        """Let RQ's code perform a job that uses what only RQ offers."""
        return rq_path.perform(self, job, performer, self.trusts_all)

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Let RQ's code perform `job` in this process and record its end."""
        if self.execution is None:
            self.prepare_execution(job)
        self.perform_job(job, queue)
        self.set_state(WorkerStatus.IDLE)

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """Called by RQ's code around jobs. Its `timeout` would shorten the registration that we renew."""
        super().heartbeat(None, pipeline)

    def handle_execution_ended(self, job: Job, queue: Queue, heartbeat_ttl: int) -> None:
        """Called by RQ's code when a job's function has ended; an interruption is passed on to our code."""
        if isinstance(error := sys.exc_info()[1], BREAKS):
            raise error
        super().handle_execution_ended(job, queue, heartbeat_ttl)

    def handle_payload(self, message: dict[str, Any]) -> None:
        """Called by RQ's subscription, in its thread, for each command to this worker."""
        command = command_of(self.name, message["data"])
        if command is None:
            return
        match command.command:
            case "shutdown":
                os.kill(os.getpid(), signal.SIGTERM)
            case "wake-up":
                self.process.wake.wake()
            case "kill-horse":
                self.process.interruption.break_off(Killed("killed by a command"))
            case "stop-job" if self.process.interruption.stop(command.job_id):
                pass  # the heartbeat's thread sees it, and sends the signal
            case _:
                log.info("ignored the command %s: no such job is running", command.command)

    def maintain(self) -> None:
        """Let RQ clean its registries and check its scheduler, if that is due; never raises."""
        if self.should_run_maintenance_tasks:
            try:
                self.run_maintenance_tasks()  # type: ignore[no-untyped-call]
            except Exception as error:  # RQ's code may raise anything
                log.warning("RQ's maintenance failed: %s", error)

    def _order_of(self, strategy: DequeueStrategy) -> order.Order:
        match strategy:
            case DequeueStrategy.ROUND_ROBIN:
                return order.Weighted(dict.fromkeys(self.queue_names(), 1))
            case DequeueStrategy.RANDOM:
                return order.Shuffled(self.queue_names())
            case _:
                return order.Strict(self.queue_names())

    @property
    def _all_by_rq(self) -> bool:
        """Whether RQ's code must perform every job, because of an option that only it supports."""
        return (
            bool(self._exc_handlers)
            or self._work_horse_killed_handler is not None
            or self.disable_default_exception_handler
            or (self.job_class, self.queue_class) != (Job, Queue)
            or self.default_result_ttl != DEFAULT_RESULT_TTL
        )

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self.process.performer.process:
            self._stop_fork(signum)
            return
        at = self._told_to_stop_at
        if at is None:
            self._told_to_stop_at = time.monotonic()
            self._shutdown_requested_date, self._stop_requested = now(), bool(self.process.scoreboard.read())
        elif time.monotonic() - at > ECHO_SECONDS:
            self._stops_at_once = True
            self.process.interruption.break_off(Interrupted("the worker was told to stop at once"))
        self.process.stop()

    def _stop_fork(self, signum: int) -> None:
        """Handle a signal to stop in a process forked from this one that has no handler of its own (yet)."""
        if self.scheduler and multiprocessing.current_process().name == "Scheduler":
            self.scheduler.request_stop()  # type: ignore[no-untyped-call]
        else:
            signal.signal(signum, signal.SIG_DFL)
            signal.raise_signal(signum)


class _Registration:
    """Registers a worker by RQ's own methods, and begins and ends what runs beside it instead of a pool."""

    def __init__(self, worker: Worker, burst: bool, with_scheduler: bool, scoreboard: Scoreboard) -> None:
        self.worker: Any = worker  # most of RQ's methods have no types
        self.burst = burst
        self.with_scheduler = with_scheduler
        self.scoreboard = scoreboard

    def enter(self) -> None:
        """Register. Raises what redis-py does, and `ValueError` for a name that is taken."""
        self.worker.register_birth()
        self.worker.set_state(WorkerStatus.IDLE)
        if self.with_scheduler:
            self.worker._start_scheduler(self.burst)
        self.worker.subscribe()
        self.worker.maintain()
        heartbeat = Heartbeat(self.worker.connection, {self.worker.name: self.scoreboard})
        self.heartbeat = HeartbeatThread(heartbeat, self.worker.maintain)

    def enter_again(self) -> None:
        """Register after a pool took the worker for dead, or the server lost its data; never raises."""
        worker = self.worker
        try:
            worker.connection.delete(worker.key)  # what is left of it: RQ refuses to register a name twice
            worker.register_birth()
        except (RedisError, ValueError) as error:
            log.warning("worker %s could not register again: %s", worker.name, error)

    def leave(self) -> None:
        """Sign off; first end what would outlive this process."""
        worker = self.worker
        self.heartbeat.stop()
        scheduling = worker.scheduler._process if worker.scheduler else None
        while scheduling and scheduling.is_alive():
            scheduling.terminate()  # again, since a signal that arrives during a fork is lost
            scheduling.join(1)
        if worker._shutdown_requested_date:
            worker.set_shutdown_requested_date()
        worker.unsubscribe()
        worker.register_death()


def _set_up_logging(level: str | None, date_format: str, log_format: str) -> None:
    """Log as RQ's workers do, unless `level` is None or the program logs already."""
    if level:
        formats = date_format or DEFAULT_LOGGING_DATE_FORMAT, log_format or DEFAULT_LOGGING_FORMAT
        for name in ("packmule", "rq.worker", "rq.job"):
            setup_loghandlers(level, *formats, name=name)
