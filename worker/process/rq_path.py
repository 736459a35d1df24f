"""Performing by RQ's own code, for jobs with features that only RQ has: callbacks, webhooks, repeats."""

from __future__ import annotations

import logging
import os
import resource
import signal
import time
import traceback
from typing import Any

from redis.exceptions import ResponseError
from rq.exceptions import NoSuchJobError
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.queue import Queue
from rq.utils import now
from rq.worker import BaseWorker, WorkerStatus

from packmule.coordination.redis.backoff import UNAVAILABLE
from packmule.jobs import keys, registry, wire
from packmule.jobs.interrupts import Interrupted, Killed, Stopped
from packmule.jobs.options import LONGEST_SPAN
from packmule.worker.deadlines import LOOK
from packmule.worker.process import outcome
from packmule.worker.process.claimed import Claimed
from packmule.worker.process.outcome import Outcome
from packmule.worker.process.performer import Performer

MARGIN = 60
"""Seconds after the job's timeout for its callbacks, and until RQ's record of the execution expires."""

STARTED_SECONDS = 365 * 24 * 3600
"""Long enough that RQ's clean-up never takes a claimed job for abandoned."""

BREAKS = (Stopped, Killed, Interrupted)
"""What interrupts a job from outside. RQ's code does not record such an end."""

log = logging.getLogger("packmule.worker")


def longest(claimed: Claimed) -> float:
    """Seconds until the job is overdue for us: RQ's code ends it in time, and its callbacks follow."""
    return claimed.timeout + MARGIN if claimed.timeout > 0 else 0


def perform(worker: BaseWorker, claimed: Claimed, performer: Performer, trusting: bool) -> Outcome:
    """Let RQ perform the job and record its end. Unless `trusting`, refuse unregistered functions."""
    started = time.time()
    adopted = False
    try:
        job = worker.job_class.fetch(claimed.id, worker.connection, worker.serializer)
        if not trusting:
            _refuse_unregistered(job, claimed)
        _adopt(worker, job, claimed)
        adopted = True
        _make_interruptible(job, performer)
        try:
            worker.execute_job(job, _queue(worker, claimed))
        except BREAKS as reason:
            return _end_broken_off(worker, claimed, reason)
    except (wire.InvalidPayload, registry.NotRegistered) as error:
        return outcome.refused(claimed, error, started)
    except UNAVAILABLE as error:
        log.warning(
            "job %s runs again: its end could not be recorded, for redis is unavailable (%s)",
            claimed.id,
            error,
        )
        return outcome.returned(claimed)
    except Exception:
        # A corrupt record, or an error around the job: RQ's code handles errors in it.
        text = traceback.format_exc()
        if adopted and not _is_started(worker, claimed):
            return outcome.settled(claimed)
        _clear(worker, claimed)
        return outcome.failed(claimed, text, started, time.time())
    return outcome.settled(claimed)


def _end_broken_off(worker: BaseWorker, claimed: Claimed, reason: BaseException) -> Outcome:
    """Let RQ record that a job was stopped or killed; give the job back if the worker stops."""
    try:
        job = worker.job_class.fetch(claimed.id, worker.connection, worker.serializer)
    except NoSuchJobError:
        return outcome.settled(claimed)
    if isinstance(reason, Interrupted):
        _clear(worker, claimed)
        return outcome.returned(claimed)
    job.ended_at = now()
    try:
        if isinstance(reason, Stopped):
            worker._stopped_job_id = job.id
            job.execute_stopped_callback(worker.death_penalty_class)
        else:
            usage = resource.getrusage(resource.RUSAGE_SELF)
            worker.handle_work_horse_killed(job, os.getpid(), signal.SIGKILL, usage)  # type: ignore[no-untyped-call]
    except Exception:
        log.exception("job %s: the handler of its interruption failed", job.id)
    worker.set_state(WorkerStatus.IDLE)
    text = "".join(traceback.format_exception(reason))
    worker.handle_job_failure(job, _queue(worker, claimed), exc_string=text)
    return outcome.settled(claimed)


def _refuse_unregistered(job: Job, claimed: Claimed) -> None:
    """Raise `NotRegistered` or `InvalidPayload` unless all functions that the job calls are registered."""
    registry.find(wire.decode_call(claimed.data).name)
    for callback in (job._success_callback_name, job._failure_callback_name, job._stopped_callback_name):
        if callback:
            registry.find(callback)


def _adopt(worker: BaseWorker, job: Job, claimed: Claimed) -> Execution:
    """Mark the job as started, with our execution id for RQ's: the started registry then names it once."""
    ttl = int(min(claimed.timeout, LONGEST_SPAN) if claimed.timeout > 0 else LONGEST_SPAN) + MARGIN
    execution = Execution(claimed.execution, job.id, worker.connection, worker_name=worker.name)
    with worker.connection.pipeline() as pipeline:
        execution.save(ttl, pipeline)
        job.execution_registry.add(execution, ttl, pipeline)
        job.set_status(JobStatus.STARTED, pipeline)
        _queue(worker, claimed).started_job_registry.add_execution(execution, pipeline, STARTED_SECONDS)
        worker.set_state(WorkerStatus.BUSY, pipeline)
        pipeline.execute()
    worker.execution = execution
    return execution


def _is_started(worker: BaseWorker, claimed: Claimed) -> bool:
    """Whether the job's end is not recorded, or its record is not a hash any more."""
    try:
        return worker.connection.hget(keys.job_key(claimed.id), "status") == b"started"
    except ResponseError:
        return True


def _clear(worker: BaseWorker, claimed: Claimed) -> None:
    """Undo what `_adopt` and RQ's code wrote about an execution that ends here."""
    job = worker.job_class(claimed.id, worker.connection, serializer=worker.serializer)
    with worker.connection.pipeline() as pipeline:
        worker.cleanup_execution(job, pipeline)
        pipeline.execute(raise_on_error=False)  # a key of another type holds nothing of the execution


def _make_interruptible(job: Job, performer: Performer) -> None:
    perform = job.perform

    def interruptible() -> Any:
        performer.in_body = True
        try:
            signal.raise_signal(LOOK)  # for a signal that came while RQ's code prepared the job
            return perform()
        finally:
            performer.in_body = False

    job.perform = interruptible  # type: ignore[method-assign]


def _queue(worker: BaseWorker, claimed: Claimed) -> Queue:
    return worker.queue_class(claimed.queue, worker.connection, serializer=worker.serializer)
