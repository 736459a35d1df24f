"""RQ's side of a worker: RQ's options, commands and maintenance around a worker process of ours."""

from __future__ import annotations

import logging
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from types import FrameType
from typing import Any, ClassVar, cast

from redis import Redis
from redis.exceptions import RedisError
from rq.defaults import DEFAULT_LOGGING_DATE_FORMAT, DEFAULT_LOGGING_FORMAT
from rq.logutils import setup_loghandlers
from rq.serializers import JSONSerializer
from rq.utils import now
from rq.worker import BaseWorker, DequeueStrategy, WorkerStatus

from packmule.errors import UsageError
from packmule.jobs import keys, stacks
from packmule.jobs.interrupts import Interrupted, Killed
from packmule.jobs.outgoing.door import Allowed
from packmule.worker import order
from packmule.worker.commands import command_of
from packmule.worker.heartbeat import Heartbeat, HeartbeatThread
from packmule.worker.kernel import ECHO_SECONDS
from packmule.worker.options import WorkerOptions
from packmule.worker.process import rq_current
from packmule.worker.process.callbacks import Callbacks, job_of
from packmule.worker.process.lookup import Lookup, Registered
from packmule.worker.process.worker import Worker as WorkerProcess
from packmule.worker.scoreboard import Scoreboard
from packmule.worker.stacks import stacks_of_threads
from packmule.worker.trusting import TrustAll

STOPS = (signal.SIGTERM, signal.SIGINT)

log = logging.getLogger("packmule.worker")


class Unsupported(UsageError, ValueError):
    """An option of RQ's workers that ours do not have."""


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
        if rq_options.get("disable_default_exception_handler"):
            raise Unsupported("failed jobs are always recorded: omit disable_default_exception_handler")
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
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # until there is something that they can stop
        _set_up_logging(logging_level, date_format, log_format)
        options = replace(
            self.options,
            burst=burst,
            max_jobs=max_jobs,
            max_idle=max_idle_time,
            result_ttl=self.default_result_ttl,
        )
        lookup: Lookup = (
            TrustAll(self.serializer) if self.trusts_all else Registered(Allowed(options.webhook_allow))
        )
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
            callbacks=Callbacks(self.connection, lookup, self.job_class, self.serializer),
            note_error=self._note_error if self._exc_handlers or self._work_horse_killed_handler else None,
        )
        rq_current.install(self.connection, self.name, self.serializer, self.job_class)
        self.process.stop_by()
        for each in STOPS:
            signal.signal(each, self._on_signal)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        performed = self.process.run()
        if self._stops_at_once:
            raise SystemExit
        return performed > 0

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
            case stacks.COMMAND:
                self._dump_stacks()
            case "stop-job" if self.process.interruption.stop(command.job_id):
                pass  # the heartbeat's thread sees it, and sends the signal
            case _:
                log.info("ignored the command %s: no such job is running", command.command)

    def _dump_stacks(self) -> None:
        """Write the stacks of this process. While a job holds the interpreter's lock, this waits."""
        running = tuple(job.id for job in self.process.scoreboard.read())
        text = f"Process {os.getpid()}, the worker:\n\n{stacks_of_threads()}"
        dump = stacks.StackDump(os.urandom(8).hex(), time.time(), text[: stacks.MOST_CHARACTERS], running)
        stacks.store(self.connection, self.name, dump)

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

    def _note_error(self, id: str, error: BaseException) -> None:
        """Call RQ's handlers of errors; log what they raise. A job that was killed has one of its own."""
        try:
            record = cast(dict[bytes, bytes], self.connection.hgetall(keys.job_key(id)))
            job = job_of(self.job_class, id, record, self.connection, self.serializer)
            if isinstance(error, Killed):
                usage = resource.getrusage(resource.RUSAGE_SELF)
                self.handle_work_horse_killed(job, os.getpid(), signal.SIGKILL, usage)  # type: ignore[no-untyped-call]
            else:
                self.handle_exception(job, type(error), error, error.__traceback__)
        except Exception:
            log.exception("job %s: a handler of its error failed", id)

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
        worker.set_state(WorkerStatus.IDLE)
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
