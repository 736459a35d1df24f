"""RQ's side of the worker: RQ's options, commands and housekeeping, and what RQ's own code calls on it."""

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
from packmule.worker.process.rq_path import BREAKS

log = logging.getLogger("packmule.worker")


class RQWorker(BaseWorker):
    """A worker in RQ's eyes. One that is not `supervised` by a pool takes RQ's commands itself."""

    executors: Executors

    trusts_all: ClassVar[bool] = False
    """For a subclass to set: perform whatever RQ would, pickles and unregistered functions too, by RQ's own
    code. Whoever can enqueue can then run any code here."""

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
        """Register with RQ, and start its scheduler if it is wanted."""
        self.register_birth()  # type: ignore[no-untyped-call]
        self.set_state(WorkerStatus.IDLE)
        if with_scheduler:
            self._start_scheduler(burst)

    def sign_on_again(self) -> None:
        """Come back from the dead: whoever rescued from this worker has struck it off."""
        try:
            self.connection.delete(self.key)  # what is left there; RQ registers no name twice
            self.register_birth()  # type: ignore[no-untyped-call]
        except (RedisError, ValueError) as error:
            log.warning("worker %s could not register again: %s", self.name, error)

    def listen(self) -> None:
        """Take RQ's commands from now on, in a worker without a pool."""
        if not self.supervised:
            self.subscribe()  # type: ignore[no-untyped-call]

    def stop_fork(self, signum: int) -> None:
        """Do what a signal means in a process forked from this one that has no handler of its own (yet)."""
        if self.scheduler and multiprocessing.current_process().name == "Scheduler":
            self.scheduler.request_stop()  # type: ignore[no-untyped-call]
        else:
            signal.signal(signum, signal.SIG_DFL)
            signal.raise_signal(signum)

    def sign_off(self) -> None:
        """Take it all back, first what outlives this process."""
        process = self.scheduler._process if self.scheduler else None
        while process and process.is_alive():
            process.terminate()  # again where it was lost, as a signal is that comes in the midst of a fork
            process.join(1)
        if self._shutdown_requested_date:
            self.set_shutdown_requested_date()  # type: ignore[no-untyped-call]
        self.unsubscribe()  # type: ignore[no-untyped-call]
        self.register_death()  # type: ignore[no-untyped-call]

    def maintain(self) -> None:
        """Now and then clean RQ's registries and look after RQ's scheduler, in a worker without a pool."""
        if not self.supervised and self.should_run_maintenance_tasks:
            try:
                self.run_maintenance_tasks()  # type: ignore[no-untyped-call]
            except RedisError as error:
                log.warning("no maintenance: %s", error)

    def order_of(self, strategy: DequeueStrategy) -> order.Order | None:
        """The order that RQ's dequeue strategy means; None for the default. Raises `ValueError`."""
        match DequeueStrategy(strategy):
            case DequeueStrategy.ROUND_ROBIN:
                return order.Weighted(dict.fromkeys(self.queue_names(), 1))
            case DequeueStrategy.RANDOM:
                return order.Shuffled(self.queue_names())
            case _:
                return None

    @property
    def all_by_rq(self) -> bool:
        """Whether an option that only RQ's code heeds makes every job its affair."""
        return (
            self.trusts_all
            or bool(self._exc_handlers)
            or self._work_horse_killed_handler is not None
            or self.disable_default_exception_handler
            or (self.job_class, self.queue_class) != (Job, Queue)
            or self.default_result_ttl != DEFAULT_RESULT_TTL
        )

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Perform `job` and record its end by RQ's code, in this process."""
        if self.execution is None:
            self.prepare_execution(job)
        self.perform_job(job, queue)
        self.set_state(WorkerStatus.IDLE)

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """Called by RQ's code around jobs; its `timeout` would cut short the registration that we renew."""
        super().heartbeat(None, pipeline)

    def handle_execution_ended(self, job: Job, queue: Queue, heartbeat_ttl: int) -> None:
        """Called by RQ's code when a job's function has ended; one that was broken off is not its affair."""
        if isinstance(error := sys.exc_info()[1], BREAKS):
            raise error
        super().handle_execution_ended(job, queue, heartbeat_ttl)

    def handle_payload(self, message: dict[str, Any]) -> None:
        """Called by RQ's subscription for each command to this worker, in a thread of its own."""
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
                pass  # the heartbeat's thread sees it and sends the signal
            case _:
                log.info("passed over the command %s: no such job is running", command.command)
