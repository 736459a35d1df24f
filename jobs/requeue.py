"""Requeueing by an operator: a job that has failed, or was stopped or canceled, waits again."""

from __future__ import annotations

import time

from redis import Redis

from packmule.coordination.redis.scripts import Script
from packmule.jobs import wire
from packmule.jobs.reader import no_such_job

_requeue = Script("jobs", "requeue", after=wire.GROUPS)


class NotRequeued(RuntimeError):
    """The job can't wait again now; the text says why."""


def requeue(client: Redis, id: str) -> None:
    """Let the job called `id` run again: its count of deaths begins anew, its attempts and checkpoint stay.

    Raises `NoSuchJob`, and `NotRequeued` for one that has not failed or whose unique place another holds.
    """
    keys = [wire.job_key(id), wire.QUEUES, wire.UNIQUE]
    status = wire.text(_requeue(client, keys, [id, wire.time_text(time.time())]))
    if not status:
        raise no_such_job(id)
    if status.startswith("held "):
        raise NotRequeued(
            f"job {id} is unique, and {status.removeprefix('held ')} holds its place: cancel that one"
        )
    if status != "requeued":
        raise NotRequeued(f"job {id} is {status}; only failed, stopped and canceled jobs run again")
