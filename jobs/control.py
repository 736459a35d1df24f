"""Steering single jobs: cancel one, run one again, take a slot from one whose worker is gone."""

from __future__ import annotations

import time

from redis import Redis
from redis.exceptions import RedisError
from rq.command import send_command
from rq.exceptions import NoSuchJobError
from rq.job import Job
from rq.serializers import JSONSerializer

from packmule.coordination.redis.replies import as_text
from packmule.coordination.redis.scripts import Script
from packmule.errors import Conflict
from packmule.jobs import keys, wire
from packmule.jobs.reader import no_such_job

LOOK_INTERVAL = 0.05
STOP_INTERVAL = 1.0
"""Seconds after which a stop command is sent again to a worker that did not react."""

_cancel = Script("jobs", "cancel")
_retry = Script("jobs", "retry")
_release = Script("jobs", "release_slot")


class NotCanceled(Conflict, TimeoutError):
    """A running job did not stop in time, or RQ can't read the record of one that waits for others."""


class NotRetried(Conflict):
    """The state of a job does not allow it to run again now."""


class SlotNotReleased(Conflict):
    """A job holds no such slot, or still runs and keeps it."""


def cancel(client: Redis, id: str, timeout: float = 5.0) -> str:
    """Cancel the job `id`, wherever it waits or runs, and return its status.

    The status is `canceled` if the job had not started, and `stopped` if it was running: it gets a `Stopped`
    exception, and half a second later its process is killed. A job that has already ended keeps its status.
    Raises `NoSuchJob`, and `NotCanceled` if the job still runs after `timeout` seconds, for example because
    its worker's host is gone.

    >>> cancel(client, id, timeout=10)  # doctest: +SKIP
    'stopped'
    """
    deadline = time.monotonic() + timeout
    send_at = 0.0
    while True:
        status = as_text(_cancel(client, [keys.job_key(id)], [id, wire.time_text(time.time())]))
        if not status:
            raise no_such_job(id)
        if status in wire.ENDED:
            return status
        if status == "deferred":
            _cancel_deferred(client, id)
            return "canceled"
        now = time.monotonic()
        if status == "started" and now >= send_at:
            send_at = now + STOP_INTERVAL
            worker = as_text(client.hget(keys.job_key(id), "worker_name") or b"")
            send_command(client, worker, "stop-job", job_id=id)
        if now > deadline:
            raise NotCanceled(f"job {id} is still {status} after {timeout:g} s: is its worker alive?")
        time.sleep(LOOK_INTERVAL)


def _cancel_deferred(client: Redis, id: str) -> None:
    """Cancel a job that waits for others by RQ's own code, which knows for which."""
    try:
        Job.fetch(id, client, JSONSerializer).cancel()
    except NoSuchJobError:
        raise no_such_job(id) from None
    except RedisError:
        raise
    except Exception as error:  # whatever RQ's code makes of a corrupt record
        raise NotCanceled(f"job {id} can't be canceled: its record is corrupt ({error!r:.200})") from None


def retry(client: Redis, id: str) -> None:
    """Enqueue a failed, stopped or canceled job again; it keeps its attempts and checkpoint.

    Those behind it in its flow that were canceled wait for it again.

    Its deaths are counted from zero again. Raises `NoSuchJob`, and `NotRetried` if the job is in another
    status, if another job holds its unique key, if a newer singleton that replaced it waits or runs, or if a
    worker still runs the job or its callback, or if others of its flow keep it from running.
    """
    key_names = [keys.job_key(id), keys.UNIQUE]
    status = as_text(_retry(client, key_names, [id, wire.time_text(time.time())]))
    if not status:
        raise no_such_job(id)
    if status == "behind":
        raise NotRetried(
            f"job {id} comes behind others of its flow that did not finish: retry those, or the flow"
        )
    if status.startswith("held "):
        holder = status.removeprefix("held ")
        raise NotRetried(f"job {id} can't run again: job {holder} holds its place; cancel that one first")
    if status.startswith("claimed "):
        worker = status.removeprefix("claimed ")
        raise NotRetried(f"job {id} can't run again yet: worker {worker} still runs it or its callback")
    if status not in ("retried", "waits"):
        raise NotRetried(f"job {id} is {status}; only failed, stopped and canceled jobs can run again")


def release_slot(client: Redis, key: str, job: str, force: bool = False) -> str:
    """Take the slot of `key` from `job`, so that the next job can have it; the worker that held it.

    The job itself is left alone: if it still runs, it goes on beside the next holder. A slot whose worker
    still claims the job is therefore released only with `force`. Raises `SlotNotReleased`.
    """
    verdict, worker = map(as_text, _release(client, [keys.holders_key(key)], [key, job, int(force)]))
    if not verdict:
        raise SlotNotReleased(f"job {job} holds no slot of {key}: packmule limits lists the jobs that do")
    if verdict == "alive":
        raise SlotNotReleased(
            f"job {job} runs on worker {worker}: cancel it (packmule job cancel {job}), "
            "or add --force to let another job run beside it"
        )
    return worker
