"""RQ's side of a worker: RQ's options, commands and maintenance, and the methods that RQ's code calls."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
from typing import Any, ClassVar

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import RedisError
from rq.defaults import DEFAULT_LOGGING_DATE_FORMAT, DEFAULT_LOGGING_FORMAT, DEFAULT_RESULT_TTL
from rq.job import Job
from rq.logutils import setup_loghandlers
from rq.queue import Queue
from rq.serializers import JSONSerializer
from rq.worker import BaseWorker, DequeueStrategy, WorkerStatus

from packmule.jobs.interrupts import Killed
from packmule.worker import order
from packmule.worker.commands import command_of
from packmule.worker.process.executors.executors import Executors
from packmule.worker.process.lookup import Lookup, Registered
from packmule.worker.process.rq_path import BREAKS
from packmule.worker.trusting import TrustAll

log = logging.getLogger("packmule.worker")


class RQWorker(BaseWorker):
    """A worker as RQ sees it. It receives RQ's commands itself unless a pool supervises it."""

    executors: Executors

    trusts_all: ClassVar[bool] = False
    """A subclass may set this to perform whatever RQ would, even pickles and unregistered functions. Anyone
    who can enqueue can then run any code here."""

    def __init__(
        self, queues: Any, name: str | None, connection: Redis | None, supervised: bool, **rq_options: Any
    ) -> None:
        if rq_options.get("serializer") is None and not self.trusts_all:
            rq_options["serializer"] = JSONSerializer
        super().__init__(queues, name=name, connection=connection, **rq_options)
        self.supervised = supervised

    def set_up_logging(self, level: str | None, date_format: str, log_format: str) -> None:
        """Log as RQ's workers do, unless `level` is None or the program logs already."""
        if level:
            formats = date_format or DEFAULT_LOGGING_DATE_FORMAT, log_format or DEFAULT_LOGGING_FORMAT
            for name in ("packmule", "rq.worker", "rq.job"):
                setup_loghandlers(level, *formats, name=name)

    def sign_on(self, burst: bool, with_scheduler: bool) -> None:
        """Register with RQ, and start RQ's scheduler if it is wanted."""
        self.register_birth()  # type: ignore[no-untyped-call]
        self.set_state(WorkerStatus.IDLE)
        if with_scheduler:
            self._start_scheduler(burst)

    def sign_on_again(self) -> None:
        """Register again: a pool took this worker for dead, and removed its registration."""
        try:
            self.connection.delete(self.key)  # what is left of it: RQ refuses to register a name twice
            self.register_birth()  # type: ignore[no-untyped-call]
        except (RedisError, ValueError) as error:
            log.warning("worker %s could not register again: %s", self.name, error)

    def listen(self) -> None:
        """Receive RQ's commands from now on, unless the pool does."""
        if not self.supervised:
            self.subscribe()  # type: ignore[no-untyped-call]

    def stop_fork(self, signum: int) -> None:
        """Handle a signal to stop in a process forked from this one that has no handler of its own (yet)."""
        if self.scheduler and multiprocessing.current_process().name == "Scheduler":
            self.scheduler.request_stop()  # type: ignore[no-untyped-call]
        else:
            signal.signal(signum, signal.SIG_DFL)
            signal.raise_signal(signum)

    def sign_off(self) -> None:
        """Undo `sign_on` and `listen`; first end what would outlive this process."""
        process = self.scheduler._process if self.scheduler else None
        while process and process.is_alive():
            process.terminate()  # again, since a signal that arrives during a fork is lost
            process.join(1)
        if self._shutdown_requested_date:
            self.set_shutdown_requested_date()  # type: ignore[no-untyped-call]
        self.unsubscribe()  # type: ignore[no-untyped-call]
        self.register_death()  # type: ignore[no-untyped-call]

    def maintain(self) -> None:
        """Let RQ clean its registries and check its scheduler when that is due, unless a pool supervises."""
        if not self.supervised and self.should_run_maintenance_tasks:
            try:
                self.run_maintenance_tasks()  # type: ignore[no-untyped-call]
            except RedisError as error:
                log.warning("RQ's maintenance failed: %s", error)

    def order_of(self, strategy: DequeueStrategy) -> order.Order | None:
        """The order of RQ's dequeue strategy; None for the default. Raises `ValueError`."""
        match DequeueStrategy(strategy):
            case DequeueStrategy.ROUND_ROBIN:
                return order.Weighted(dict.fromkeys(self.queue_names(), 1))
            case DequeueStrategy.RANDOM:
                return order.Shuffled(self.queue_names())
            case _:
                return None

    @property
    def lookup(self) -> Lookup:
        """What this worker may call."""
        return TrustAll(self.serializer) if self.trusts_all else Registered()

    @property
    def all_by_rq(self) -> bool:
        """Whether RQ's code must perform every job, because of an option that only it supports."""
        return (
            bool(self._exc_handlers)
            or self._work_horse_killed_handler is not None
            or self.disable_default_exception_handler
            or (self.job_class, self.queue_class) != (Job, Queue)
            or self.default_result_ttl != DEFAULT_RESULT_TTL
        )

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
                self.executors.wake()
            case "kill-horse":
                self.executors.break_off(Killed("killed by a command"))
            case "stop-job" if self.executors.stop(command.job_id):
                pass  # the heartbeat's thread sees it, and sends the signal
            case _:
                log.info("ignored the command %s: no such job is running", command.command)
