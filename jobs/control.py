"""Steering single jobs: cancel, retry or delete one, or run it now; or each of some.

`acts.py` does the same to many.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from redis import Redis
from redis.exceptions import RedisError
from rq.exceptions import NoSuchJobError
from rq.job import Job
from rq.serializers import JSONSerializer

from packmule.coordination.redis.replies import as_text, pipelined
from packmule.coordination.redis.scripts import Script
from packmule.errors import Conflict, Error
from packmule.jobs import keys, wire
from packmule.jobs.cluster import send_command
from packmule.jobs.reader import no_such_job
from packmule.jobs.spans import Span, in_seconds
from packmule.units import given_span

LOOK_INTERVAL = 0.05
STOP_INTERVAL = 1.0
"""Seconds after which a stop command is sent again to a worker that did not react."""

_cancel = Script("jobs", "cancel")
_retry = Script("jobs", "retry")
_run_now = Script("jobs", "run_now")
_delete = Script("jobs", "delete")


class NotCanceled(Conflict, TimeoutError):
    """A running job did not stop in time, or RQ can't read the record of one that waits for others."""


class NotRetried(Conflict):
    """The state of a job does not allow it to run again now."""


class NotRun(Conflict):
    """A job is not scheduled, or waits for something else than its time."""


class NotDeleted(Conflict):
    """A job runs, or something else still needs its record."""


def cancel(client: Redis, id: str, timeout: Span = 5.0) -> str:
    """Cancel the job `id`, wherever it waits or runs, and return its status.

    The status is `canceled` if the job had not started, and `stopped` if it was running: it gets a `Stopped`
    exception, and half a second later its process is killed. A job that has already ended keeps its status.
    Raises `NoSuchJob`, and `NotCanceled` if the job still runs after `timeout` seconds, for example because
    its worker's host is gone.

    >>> cancel(client, id, timeout=10)  # doctest: +SKIP
    'stopped'
    """
    ends, _ = _cancel_all(client, [id], in_seconds(timeout, "timeout"))
    if isinstance(end := ends[id], Error):
        raise end
    return end


def cancel_each(client: Redis, ids: Sequence[str], timeout: float = 5.0) -> list[Error | None]:
    """Cancel each of `ids`, all at once: those that run have `timeout` seconds in all.

    Returns the error of each that was refused, which is `NotCanceled` for one that had ended before.
    """
    ends, were_running = _cancel_all(client, ids, timeout)
    errors: dict[str, Error | None] = {}
    for id, end in ends.items():
        if isinstance(end, Error):
            errors[id] = end
        elif end == "canceled" or (id in were_running and end == "stopped"):
            errors[id] = None
        else:
            errors[id] = NotCanceled(f"job {id} is {end}: it has ended")
    return [errors[id] for id in ids]


def _cancel_all(client: Redis, ids: Sequence[str], timeout: float) -> tuple[dict[str, str | Error], set[str]]:
    """The status in which each job ended, or why it did not; and which of them were running."""
    ends: dict[str, str | Error] = {}
    were_running: set[str] = set()
    deadline, send_at = time.monotonic() + timeout, 0.0
    while left := [id for id in dict.fromkeys(ids) if id not in ends]:
        now = wire.time_text(time.time())
        replies = _cancel.each(client, [([keys.job_key(id)], [id, now]) for id in left])
        running = {}
        for id, reply in zip(left, replies, strict=True):
            if isinstance(reply, RedisError):
                raise reply
            status = as_text(reply)
            if status in ("started", "claimed"):
                running[id] = status
            elif status == "deferred":
                ends[id] = _cancel_deferred(client, id)
            else:
                ends[id] = status or no_such_job(id)
        were_running.update(running)
        if running and time.monotonic() >= send_at:
            send_at = time.monotonic() + STOP_INTERVAL
            _stop(client, [*running])
        if running and time.monotonic() > deadline:
            text = f"after {given_span(timeout)}: is its worker alive?"
            ends |= {id: NotCanceled(f"job {id} is still {status} {text}") for id, status in running.items()}
        elif running:
            time.sleep(LOOK_INTERVAL)
    return ends, were_running


def _stop(client: Redis, ids: Sequence[str]) -> None:
    """Ask the workers that run these jobs to stop them."""
    workers = pipelined(client, [("HGET", keys.job_key(id), "worker_name") for id in ids], None)
    for id, worker in zip(ids, workers, strict=True):
        if worker:
            send_command(client, as_text(worker), "stop-job", job_id=id)


def _cancel_deferred(client: Redis, id: str) -> str | Error:
    """Cancel a job that waits for others by RQ's own code, which knows for which."""
    try:
        Job.fetch(id, client, JSONSerializer).cancel()
    except NoSuchJobError:
        return no_such_job(id)
    except RedisError:
        raise
    except Exception as error:  # whatever RQ's code makes of a corrupt record
        return NotCanceled(f"job {id} can't be canceled: its record is corrupt ({error!r:.200})")
    return "canceled"


def retry(client: Redis, id: str) -> None:
    """Enqueue a failed, stopped or canceled job again; it keeps its attempts and checkpoint.

    Those behind it in its flow that were canceled wait for it again.

    Its deaths are counted from zero again. Raises `NoSuchJob`, and `NotRetried` if the job is in another
    status, if another job holds its unique key, if a newer singleton that replaced it waits or runs, or if a
    worker still runs the job or its callback, or if others of its flow keep it from running.
    """
    (error,) = retry_each(client, [id])
    if error:
        raise error


def retry_each(client: Redis, ids: Sequence[str]) -> list[Error | None]:
    """Do that to each of `ids` in one round trip; the error of each that was refused."""
    return _each(client, _retry, ids, lambda id: [keys.job_key(id), keys.UNIQUE], _judge_retry)


def _judge_retry(id: str, status: str) -> None:
    if not status:
        raise no_such_job(id)
    if status == "behind":
        raise NotRetried(
            f"job {id} comes after jobs of its flow that did not finish: retry those, or the flow"
        )
    if status.startswith("held "):
        holder = status.removeprefix("held ")
        raise NotRetried(f"job {id} can't run again: job {holder} holds its place; cancel that one first")
    if status.startswith("claimed "):
        worker = status.removeprefix("claimed ")
        raise NotRetried(f"job {id} can't run again yet: worker {worker} still runs it or its callback")
    if status not in ("retried", "waits"):
        raise NotRetried(f"job {id} is {status}; only failed, stopped and canceled jobs can run again")


def run_now(client: Redis, id: str) -> None:
    """Let the scheduled job `id` run now; it may wait for its time or for a retry.

    It goes to its queue, as when its time has come. Raises `NoSuchJob`, and `NotRun` if it isn't scheduled,
    sleeps in a step, or is scheduled once its callback is done.
    """
    (error,) = run_each(client, [id])
    if error:
        raise error


def run_each(client: Redis, ids: Sequence[str]) -> list[Error | None]:
    """Do that to each of `ids` in one round trip; the error of each that was refused."""
    return _each(client, _run_now, ids, lambda id: [keys.job_key(id)], _judge_run)


def _judge_run(id: str, status: str) -> None:
    if not status:
        raise no_such_job(id)
    if status == "sleeps":
        raise NotRun(f"job {id} sleeps in a step: it resumes when that time is over")
    if status == "callback":
        raise NotRun(f"job {id} can't run yet: its callback is due first")
    if status != "promoted":
        raise NotRun(f"job {id} is {status}; only scheduled jobs can be run now")


def delete(client: Redis, id: str) -> None:
    """Delete the job `id`, which waits, is scheduled or has ended, with all that is kept of it.

    In its batch one that had not ended counts as canceled. Raises `NoSuchJob`, and `NotDeleted` if a worker
    has it, if its callback is due, or if other jobs wait for it.
    """
    (error,) = delete_each(client, [id])
    if error:
        raise error


def delete_each(client: Redis, ids: Sequence[str]) -> list[Error | None]:
    """Do that to each of `ids` in one round trip; the error of each that was refused."""

    call = keys.new_job_id()

    def key_names(id: str) -> list[str]:
        return [keys.job_key(id), keys.dependents_key(id), keys.deleted_key(call)]

    errors = _each(client, _delete, ids, key_names, _judge_delete)
    for number, error in enumerate(errors):
        if isinstance(error, _Deferred):  # RQ's code knows for which jobs it waits
            end = _cancel_deferred(client, ids[number])
            errors[number] = (
                end
                if isinstance(end, Error)
                else _each(client, _delete, [ids[number]], key_names, _judge_delete)[0]
            )
    return errors


class _Deferred(NotDeleted):
    """A job waits for others of RQ's, so that RQ's code has to cancel it first."""


def _judge_delete(id: str, status: str) -> None:
    if not status:
        raise no_such_job(id)
    if status == "deferred":
        raise _Deferred(f"job {id} waits for others: cancel it first (packmule job cancel {id})")
    if status == "dependents":
        raise NotDeleted(f"job {id} can't be deleted: other jobs wait for it; cancel or delete those first")
    if status == "callback":
        raise NotDeleted(f"job {id} can't be deleted yet: its callback is due")
    if status != "deleted":
        raise NotDeleted(
            f"job {id} can't be deleted: a worker has it; cancel it first (packmule job cancel {id})"
        )


def _each(
    client: Redis,
    script: Script,
    ids: Sequence[str],
    key_names: Callable[[str], list[str]],
    judge: Callable[[str, str], None],
) -> list[Error | None]:
    """Run a script for each job in one round trip; the error that `judge` raises for a reply, if it does."""
    now = wire.time_text(time.time())
    errors: list[Error | None] = []
    for id, reply in zip(ids, script.each(client, [(key_names(id), [id, now]) for id in ids]), strict=True):
        if isinstance(reply, RedisError):
            raise reply
        try:
            judge(id, as_text(reply))
            errors.append(None)
        except Error as error:
            errors.append(error)
    return errors
