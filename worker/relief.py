"""Relief: the jobs behind one that lets its process do nothing else go back to their queues."""

from __future__ import annotations

import time
from typing import cast

from redis import Redis

from jobs import wire
from worker.rescue import close_waiting, rescue
from worker.slot import MAIN, Performing, Slots

RELIEF_SECONDS = 0.06
"""A worker that still holds jobs back so long after it began one, when its clerk should have returned them,
can't: the job is in a long call that keeps the interpreter's lock."""

STORE_SECONDS = 0.001
"""By then what either process has written to the shared memory is seen by the other."""


def is_due(slots: Slots) -> bool:
    """Whether the worker holds back jobs that it can't return itself."""
    job = slots.read_one(MAIN)
    return (
        job is not None
        and slots.holds_back
        and not slots.is_manifold
        and time.monotonic() - job.started > RELIEF_SECONDS
    )


def relieve(client: Redis, worker: str, slots: Slots) -> list[str]:
    """Return what the worker has claimed and not begun, in its place; the ids. Raises what redis-py does.

    The worker is told first: when its job ends it starts none of the others, whether they went back or not.
    """
    job = slots.read_one(MAIN)
    if job is None:
        return []
    slots.revoke(job)
    time.sleep(STORE_SECONDS)
    close_waiting(client, worker)
    held = cast(dict[bytes, bytes], client.hgetall(wire.claims_key(worker)))
    # Only now, for if it went on before they were read, they are of its next claim, and may have begun.
    now = slots.read_one(MAIN)
    if now is None or now.execution != job.execution:
        return []
    last_claim = wire.text(held.get(b".claim", b""))
    unbegun = [
        execution
        for field, execution in ((wire.text(field), wire.text(value)) for field, value in held.items())
        if not field.startswith(".") and _is_after(execution, job, last_claim)
    ]
    back = rescue(client, worker, "returned", running=unbegun, scope="named").back if unbegun else []
    slots.hold_back(False)
    return back


def _is_after(execution: str, job: Performing, last_claim: str) -> bool:
    """Whether it comes behind the job in its batch, or was moved here by a push meanwhile.

    What a call claimed is performed before what was moved here, so behind a moved job it has ended.
    """
    claim, _, number = execution.rpartition("-")
    own_claim, _, own_number = job.execution.rpartition("-")
    return claim != last_claim if claim != own_claim else int(number) > int(own_number)
