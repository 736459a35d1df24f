"""Rescue: what a worker held goes back to its queues when the worker stops, dies or loses its lease."""

from __future__ import annotations

import time
from typing import Literal, NamedTuple, cast

import msgspec
from redis import Redis

from coordination.scripts import Script
from jobs import wire
from worker.death import DeathCertificate

Verdict = Literal["returned", "died", "overran"]

MOST_DEATHS = 3
"""A job whose process died this often fails, so that it can't go on killing workers."""

_rescue = Script("worker", "rescue")


class Rescued(NamedTuple):
    """Ids that went back to their queues, and ids that failed for good."""

    back: list[str]
    failed: list[str]


def rescue(
    client: Redis,
    worker: str,
    verdict: Verdict,
    reason: str = "",
    running: str = "",
    only_expired: bool = False,
    certificate: DeathCertificate | None = None,
) -> Rescued:
    """Return all that `worker` holds to the front of its queues, and end its lease.

    `running` is the execution that was being performed, where that is known: only its job is counted as
    having died or overrun, and every claimed one where it is not. `reason` is what a job that fails by it
    will show; `certificate` is kept with a job that died. With `only_expired` nothing happens while the
    lease goes on.
    """
    reply = _rescue(
        client,
        keys=[
            wire.claims_key(worker),
            wire.waiting_key(worker),
            wire.LEASES,
            wire.worker_key(worker),
            wire.WORKERS,
        ],
        args=[
            worker,
            verdict,
            running,
            MOST_DEATHS,
            wire.error_text(reason),
            wire.time_text(time.time()),
            "expired" if only_expired else "",
            msgspec.json.encode(certificate) if certificate else "",
        ],
    )
    back, failed = reply or ((), ())
    return Rescued([id.decode() for id in back], [id.decode() for id in failed])


def rescue_expired(client: Redis) -> dict[str, Rescued]:
    """Rescue from every worker whose lease has ended; what each held. Several pools may do it at once."""
    seconds, microseconds = client.time()
    now = seconds + microseconds / 1e6
    reason = "the worker vanished: its lease ended with no sign of life from its host"
    expired = cast(list[bytes], client.zrangebyscore(wire.LEASES, "-inf", now))
    return {
        worker: rescue(client, worker, "died", reason, only_expired=True)
        for worker in map(wire.text, expired)
    }
