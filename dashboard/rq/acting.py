"""What rq-dashboard's buttons do: our own acts, which keep batches, flows, limits and unique jobs right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from redis import Redis

from packmule.errors import Conflict, Error
from packmule.jobs import control
from packmule.jobs.acts import matching
from packmule.jobs.job_filter import JobFilter
from packmule.jobs.reader import NoSuchJob

MOST = 10_000
"""Jobs that one press of a button acts on."""

STATUSES = {"failed": ("failed", "stopped")}
"""RQ keeps stopped jobs among the failed ones."""


class NotEmptied(Conflict):
    """Some jobs that a button was to delete are still needed."""


def requeue(client: Redis, id: str) -> str:
    """Let a job run again."""
    control.retry(client, id)
    return "The job is queued again."


def delete(client: Redis, id: str) -> str:
    """Delete a job; one that is gone is."""
    try:
        control.delete(client, id)
    except NoSuchJob:
        return "The job is gone."
    return "The job is deleted."


def requeue_all(client: Redis, queue: str) -> tuple[int, str]:
    """Let the failed jobs of a queue run again."""
    return _each(client, queue, "failed", control.retry_each, "queued again")


def empty(client: Redis, queue: str, registry: str) -> tuple[int, str]:
    """Delete the jobs of a queue in one status. Raises `NotEmptied` for those that run."""
    if registry == "started":
        raise NotEmptied("Jobs that run can't be deleted: cancel them first (packmule job cancel ID).")
    return _each(client, queue, registry, control.delete_each, "deleted")


def compact(client: Redis, queue: str) -> str:
    """RQ's way takes the whole queue away and puts it back job by job, and a crash between loses the rest."""
    return "There is nothing to do: workers pass over ids whose jobs are gone."


def _each(
    client: Redis,
    queue: str,
    registry: str,
    do: Callable[[Redis, Sequence[str]], list[Error | None]],
    done_to: str,
) -> tuple[int, str]:
    done, refused = 0, Counter[str]()
    statuses = STATUSES.get(registry, (registry,))
    for ids in matching(client, JobFilter(queue=queue), statuses):
        for id, error in zip(ids, do(client, ids), strict=True):
            done += error is None
            if error is not None:
                refused[str(error).replace(id, "ID")] += 1
        if done >= MOST:
            break
    message = f"{done:,} jobs are {done_to}."
    if done >= MOST:
        message += " There may be more: press the button again."
    for reason, count in refused.most_common(1):
        message += f" {refused.total():,} were refused, {count:,} of them because {reason}"
    return done, message
