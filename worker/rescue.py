"""Rescue: a worker's jobs go back to their queues when it stops, dies or loses its lease.

A rescued job is queued again, and the run that broke off is no attempt. A living pool knows from the
scoreboard what ran. If the process died, each job that ran counts a death, and fails at the third. If the
pool killed it for a timeout, the attempt of the late job has failed. If it was for memory, each attempt that
ran has failed. Jobs of these two kinds may have a retry.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from typing import Literal, NamedTuple

import msgspec
from redis import Redis
from redis.exceptions import ResponseError

from packmule.coordination.redis.backoff import is_transient, retry_until_available
from packmule.coordination.redis.replies import as_text
from packmule.coordination.redis.scripts import Script
from packmule.jobs import keys, wire
from packmule.worker.crash_report import CrashReport

Verdict = Literal["returned", "vanished", "died", "overran", "stopped"]
Scope = Literal["all", "expired", "named"]

MOST_DEATHS = 3
"""A job fails once its process has died this often, so that it can't go on killing workers."""

MOST_WORKERS, RESCUE_SECONDS = 10, 0.1
"""How many workers one call rescues, and in what time it begins the last: its caller has more to do."""

log = logging.getLogger("packmule.worker")
_rescue = Script("worker", "rescue")
_expired = Script("worker", "expired")


class Rescued(NamedTuple):
    """The ids of jobs that went back to their queues, and of jobs that failed or stopped."""

    back: list[str]
    failed: list[str]


def assemble() -> None:
    """Assemble the script before it is needed: the first jobs to rescue would wait for that."""
    _rescue.command((), ())


def rescue(
    client: Redis,
    worker: str,
    verdict: Verdict,
    reason: str = "",
    executions: Collection[str] = (),
    scope: Scope = "all",
    report: CrashReport | None = None,
) -> Rescued:
    """Return all jobs that `worker` holds to the front of their queues, and end its lease.

    The verdict applies to `executions`; the other jobs just go back. `reason` is what a job that fails by it
    will show; `report` is kept with a job that died. With the scope `expired` nothing happens while the
    lease goes on, and with `named` a worker that goes on loses only its `executions`.
    """
    if scope != "named":
        close_waiting(client, worker)
    key_names = [
        keys.claims_key(worker),
        keys.waiting_key(worker),
        keys.LEASES,
        keys.worker_key(worker),
        keys.WORKERS,
    ]
    args = [
        worker,
        verdict,
        "".join(f"{execution} " for execution in executions),
        MOST_DEATHS,
        wire.error_text(reason),
        wire.time_text(time.time()),
        scope,
        msgspec.json.encode(report) if report else "",
    ]
    rescued = Rescued([], [])
    has_more = 1
    while has_more:  # a call moves a few jobs, so that the server serves others in between
        back, failed, has_more = _rescue(client, key_names, args) or ((), (), 0)
        rescued.back[:0] = map(as_text, back)
        rescued.failed.extend(map(as_text, failed))
    return rescued


def record_crash(client: Redis, worker: str, execution: str, report: CrashReport) -> Rescued:
    """Record the crash of an isolated process, once Redis answers: its job counts a death, and runs again.

    The job fails instead if it had too many deaths. Either way `worker` loses its claim on `execution`.
    """
    return retry_until_available(
        lambda: rescue(client, worker, "died", report.cause, [execution], "named", report)
    )


def rescue_expired(client: Redis) -> dict[str, Rescued]:
    """Rescue the jobs of workers whose lease has ended, by worker: call it again until there are none.

    Several pools may do it at once. One that can't be rescued is logged, and tried again a lease later.
    """
    rescued: dict[str, Rescued] = {}
    ends_at = time.monotonic() + RESCUE_SECONDS
    for name in _expired(client, [keys.LEASES, keys.LULL], [MOST_WORKERS, keys.LEASE_SECONDS]):
        if time.monotonic() > ends_at:
            break
        try:
            worker = name.decode()
            rescued[worker] = rescue(client, worker, "vanished", scope="expired")
        except UnicodeDecodeError:
            log.warning("removed the lease of a worker whose name is not text: %r", name[:100])
            client.zrem(keys.LEASES, name)
        except ResponseError as error:
            if is_transient(error):
                raise
            log.error("worker %s: its jobs can't be given back: %s", worker, error)
            client.zadd(keys.LEASES, {name: server_time(client) + keys.LEASE_SECONDS}, xx=True)
    return rescued


def server_time(client: Redis) -> float:
    """The server's Unix time."""
    seconds, microseconds = client.time()
    return seconds + microseconds / 1e6


def close_waiting(client: Redis, worker: str) -> None:
    """Close the connections on which a dead worker waited for jobs.

    They can outlive it, half open or held by a process that a job left behind. A push would then move an id
    into a list that nobody reads. A restarted server uses connection ids again, so their name decides.
    """
    try:
        ids = (client.hget(keys.claims_key(worker), keys.WAITERS) or b"").split()
        waiting = client.client_list(client_id=[int(id) for id in ids]) if ids else []
    except (ResponseError, ValueError):
        return  # the claims are corrupt, and name no connections
    name = keys.connection_name(worker)
    for other in waiting:
        if other["name"] == name:
            try:
                client.client_kill_filter(_id=other["id"])
            except ResponseError:
                continue  # it closed meanwhile
