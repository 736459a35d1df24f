"""Dependents: RQ's own code enqueues the jobs that waited for a job once it has ended."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import cast

from redis import Redis
from redis.exceptions import RedisError
from rq.exceptions import NoSuchJobError
from rq.job import Job, JobStatus
from rq.queue import Queue
from rq.serializers import JSONSerializer

from packmule.coordination.redis.backoff import is_transient
from packmule.coordination.redis.replies import as_text
from packmule.jobs import keys

log = logging.getLogger("packmule.worker")

FORGOTTEN_SECONDS = 10.0
"""A worker that has not enqueued an ended job's dependents after this long is dead."""


PARENTS_A_CALL = 10


def enqueue_dependents(queue: Queue, job_class: type[Job], job_id: str) -> None:
    """Enqueue the jobs that waited for this one; doing it twice does no harm. Raises what redis-py does.

    A job whose record is gone has finished, with a result TTL of 0.
    """
    client = queue.connection
    try:
        job = job_class.fetch(job_id, client, queue.serializer)
    except NoSuchJobError:
        job = job_class(job_id, client, serializer=queue.serializer)
        job._status = JobStatus.FINISHED
    queue.enqueue_dependents(job, refresh_job_status=False)
    client.zrem(keys.PARENTS, job_id)


def enqueue_dependents_of(queue: Queue, job_class: type[Job], ids: Sequence[str]) -> None:
    """Enqueue the jobs that waited for these; log what RQ's code raises, which may be anything."""
    for id in ids:
        try:
            enqueue_dependents(queue, job_class, id)
        except Exception as error:
            log.error("job %s: its dependents were not enqueued: %s", id, error)


def enqueue_forgotten(client: Redis) -> int:
    """Enqueue the dependents of jobs whose worker died after acknowledging them; how many jobs."""
    before = time.time() - FORGOTTEN_SECONDS
    forgotten = cast(list[bytes], client.zrangebyscore(keys.PARENTS, "-inf", before, 0, PARENTS_A_CALL))
    for name in forgotten:
        try:
            enqueue_dependents(Queue(connection=client, serializer=JSONSerializer), Job, name.decode())
        except Exception as error:  # whatever RQ's code makes of a corrupt record
            if isinstance(error, RedisError) and is_transient(error):
                raise
            log.error("job %s: its dependents can't be enqueued: %s", as_text(name)[:200], error)
            client.zrem(keys.PARENTS, name)
    return len(forgotten)
