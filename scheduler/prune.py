"""Pruning: what is over is forgotten, so that nothing grows for ever."""

from __future__ import annotations

from redis import Redis
from redis.exceptions import ResponseError

from coordination.scripts import Script
from jobs import audit, events, wire
from scheduler.leader import FENCE, refuse

JOBS_A_CALL = 500
"""Few enough that one call holds the server for a millisecond or so."""

CALLS_A_QUEUE = 200
"""In one round; the next goes on."""

_prune = Script("scheduler", "prune", after=(*wire.CALL, *FENCE))


def prune(client: Redis, term: str = "") -> int:
    """Forget jobs whose time to live is over, workers that are gone, and old events; how many ids.

    RQ trims its registries where its own workers run or its dashboard is looked at, and nowhere else. Done at
    any time and by several it does no harm. Raises `Overtaken` if the leader's `term` is over.
    """
    forgotten = 0
    for key in map(wire.text, client.smembers(wire.QUEUES)):
        queue = wire.queue_name(key)
        keys = [wire.registry_key(status, queue) for status in ("finished", "failed", "canceled")]
        keys += wire.workers_key(queue), wire.WORKERS
        cursor = "0"
        for _ in range(CALLS_A_QUEUE):
            reply = _prune(client, keys, [JOBS_A_CALL, cursor, term])
            refuse(reply)
            count, cursor = int(reply[0]), wire.text(reply[1])
            forgotten += count
            if cursor == "0" and count < JOBS_A_CALL:
                break
    for stream in (events.stream(client), audit.stream(client)):
        try:
            stream.trim()
        except ResponseError:
            continue  # the key holds something else, which the next event moves aside
    return forgotten
