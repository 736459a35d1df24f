"""Cancelling: a job that waits is taken from its queue, one that runs is told to stop."""

from __future__ import annotations

import time

from redis import Redis
from rq.command import send_command
from rq.job import Job
from rq.serializers import JSONSerializer

from packmule.coordination.redis.scripts import Script
from packmule.jobs import wire
from packmule.jobs.reader import ENDED, no_such_job

LOOK_INTERVAL = 0.05
STOP_INTERVAL = 1.0
"""Seconds after which a worker that did not react is told again."""

_cancel = Script("jobs", "cancel", after=wire.GROUPS)


class NotCancelled(TimeoutError):
    """A running job did not stop in time; the text names its worker."""


def cancel(client: Redis, id: str, timeout: float = 5.0) -> str:
    """Cancel the job called `id`, wherever it waits or runs, and return its status.

    That is `canceled` if it had not started, `stopped` if it was running (it gets a `Stopped` exception, and
    half a second later its process is killed), or the one it had if it has ended already. Raises `NoSuchJob`,
    and `NotCancelled` if it still runs after `timeout` seconds, as when its worker's host is gone.
    """
    deadline = time.monotonic() + timeout
    tell_at = 0.0
    while True:
        status = wire.text(_cancel(client, [wire.job_key(id)], [id, wire.time_text(time.time())]))
        if not status:
            raise no_such_job(id)
        if status in ENDED:
            return status
        if status == "deferred":
            # RQ knows which jobs it waits for.
            Job.fetch(id, client, JSONSerializer).cancel()
            return "canceled"
        now = time.monotonic()
        if status == "started" and now >= tell_at:
            tell_at = now + STOP_INTERVAL
            worker = wire.text(client.hget(wire.job_key(id), "worker_name") or b"")
            send_command(client, worker, "stop-job", job_id=id)
        if now > deadline:
            raise NotCancelled(f"job {id} is still {status} after {timeout:g} s: does its worker live?")
        time.sleep(LOOK_INTERVAL)
