"""RQ's own way of performing, for the jobs that use what only RQ offers: callbacks, webhooks, repeats."""

from __future__ import annotations

import time

from redis.exceptions import RedisError
from rq.job import Job
from rq.queue import Queue
from rq.worker import BaseWorker

from jobs import registry, wire
from worker import outcome
from worker.outcome import Claimed, Outcome


def perform(worker: BaseWorker, claimed: Claimed) -> Outcome:
    """Let RQ perform the job and record its end; refuse it if it would call what is not registered."""
    started = time.time()
    try:
        job = Job.fetch(claimed.id, worker.connection, worker.serializer)
        registry.find(wire.decode_call(claimed.data).name)
        for callback in (job._success_callback_name, job._failure_callback_name, job._stopped_callback_name):
            if callback:
                registry.find(callback)
    except RedisError:
        raise
    except Exception as error:  # whatever RQ's code makes of a corrupt record, and what is not registered
        return outcome.refused(claimed, error, started)
    queue = Queue(claimed.queue, worker.connection, serializer=worker.serializer)
    worker.prepare_execution(job)
    worker.perform_job(job, queue)
    return outcome.settled(claimed)
