"""Stalled workers: jobs claimed behind one that blocks its process go back to their queues."""

from __future__ import annotations

import time
from typing import cast

from redis import Redis

from packmule.coordination.redis.replies import as_text
from packmule.jobs import keys
from packmule.worker.rescue import close_waiting, rescue
from packmule.worker.scoreboard import MAIN, Scoreboard

STALLED_SECONDS = 0.06
"""A worker that still holds unstarted jobs this long after it started one has stalled. Its completer would
have returned them, but the job is in a long call that keeps the interpreter's lock. It's longer than the
completer's `LONG_SECONDS`, so what the pool gives back is begun nowhere else."""


def is_stalled(scoreboard: Scoreboard) -> bool:
    """Whether the worker holds unstarted jobs and can't return them itself."""
    job = scoreboard.read_one(MAIN)
    return (
        job is not None
        and not scoreboard.is_concurrent
        and job.execution in scoreboard.held()
        and time.monotonic() - job.started > STALLED_SECONDS
    )


def give_back(client: Redis, worker: str, scoreboard: Scoreboard) -> list[str]:
    """Return what the worker has claimed and not started, in its place; the ids. Raises what redis-py does.

    After a job of more than the completer's `LONG_SECONDS` the worker starts none of the others, and returns
    jobs that have arrived for it.
    """
    job = scoreboard.read_one(MAIN)
    if job is None:
        return []
    close_waiting(client, worker)
    claims = cast(dict[bytes, bytes], client.hgetall(keys.claims_key(worker)))
    now, held = scoreboard.read_one(MAIN), scoreboard.held()
    # Checked after the claims were read: what the worker claims once it goes on is its own.
    if now is None or now.execution != job.execution or job.execution not in held:
        return []
    begun = held[: held.index(job.execution) + 1]  # some of these have ended and are not acknowledged yet
    unbegun = [
        as_text(execution)
        for id, execution in claims.items()
        if not id.startswith(b".") and as_text(execution) not in begun
    ]
    back = rescue(client, worker, "returned", executions=unbegun, scope="named").back if unbegun else []
    scoreboard.show_held(())
    return back
