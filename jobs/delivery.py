"""Delivery: send written jobs and batches to the server, and tell why it refuses them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from redis import Redis
from redis.exceptions import OutOfMemoryError, ResponseError

from packmule.coordination.redis.backoff import UNAVAILABLE
from packmule.coordination.redis.connection_kinds import raise_ours
from packmule.coordination.redis.durability import KEY, durability, refuse_unconfirmed
from packmule.coordination.redis.fitness import refuse_cluster
from packmule.coordination.redis.replies import as_text
from packmule.coordination.redis.scripts import Script
from packmule.errors import Conflict, NotFound
from packmule.jobs import entry, keys
from packmule.jobs.batch_state import no_such_batch
from packmule.jobs.entry import Entry
from packmule.jobs.reader import no_such_job

_enqueue = Script("jobs", "enqueue")
_enqueue_after = Script("jobs", "enqueue_after")
_write_edges = Script("jobs", "write_edges")
_add_nodes = Script("jobs", "add_nodes")
_create_batch = Script("jobs", "create_batch")


class BatchClosed(Conflict, RuntimeError):
    """A batch takes no more jobs: it has ended or was canceled."""


class NoSuchNode(NotFound, LookupError):
    """A flow has no node of that name; nothing was added to it."""


class ServerFull(Conflict, RuntimeError):
    """The server has no memory left for more jobs; nothing was enqueued."""


def deliver(
    redis: Redis, entries: Sequence[Entry], durable: bool = False, after: Sequence[str] = ()
) -> dict[str, str]:
    """Enqueue `entries`, hundreds a round trip; by its id, the holder of each job that was kept out.

    They wait for the jobs `after`. If `durable`, return only once the server has confirmed that it keeps
    them. Raises `NoSuchBatch`, `BatchClosed`, `ServerFull`, `NotDurable`, `Unconfirmed`, and `NoSuchJob` for
    one of `after`.
    """
    holders: dict[str, str] = {}
    call = _called_durably if durable else _called
    for chunk in entry.chunks(entries):
        script, args = (_enqueue_after, [entry.pack(after)]) if after else (_enqueue, [])
        replies = call(script, redis, [keys.UNIQUE], [*entry.arguments(chunk), *args])
        for position, reply in zip(replies[::2], replies[1::2], strict=True):
            if not isinstance(reply, int):
                holders[chunk[position - 1].id] = as_text(reply)
    return holders


def create_batch(
    redis: Redis, batch: str, parent: str | None, fields: Sequence[str], callbacks: Sequence[Entry]
) -> None:
    """Make the batch called `batch`, a hash of `fields`, and store its `callbacks`, in one trip.

    Raises what `deliver` does, because of its parent.
    """
    key_names = [keys.UNIQUE, keys.batch_key(batch), keys.BATCHES]
    args = [*entry.arguments(callbacks), entry.pack((batch, parent or "", fields))]
    _called(_create_batch, redis, key_names, args)


def write_edges(redis: Redis, flow: str, numbers: Sequence[str], edges: Sequence[str]) -> None:
    """Write nodes of a flow and chunks of their children, fields and values in turn, hundreds a round trip.

    Raises what `deliver` does.
    """
    key = keys.batch_key(flow)
    key_names = [key, f"{key}:nodes", f"{key}:children"]
    for first in range(0, max(len(numbers), len(edges)), 2 * entry.JOBS_A_TRIP):
        last = first + 2 * entry.JOBS_A_TRIP
        _called(_write_edges, redis, key_names, [flow, entry.pack((numbers[first:last], edges[first:last]))])


def add_nodes(
    redis: Redis,
    flow: str,
    names: Sequence[str],
    entries: Sequence[Entry],
    letters: Mapping[str, str],
    taken: Collection[str],
) -> None:
    """Add nodes to a flow that has begun, behind those that `letters` name, in one trip.

    Raises what `deliver` does, and `NoSuchNode`.
    """
    key = keys.batch_key(flow)
    packed = entry.pack((flow, names, letters, dict.fromkeys(taken, 1)))
    args = [*entry.arguments(entries), packed]
    _called(_add_nodes, redis, [keys.UNIQUE, f"{key}:jobs", f"{key}:nodes"], args)


def _called_durably(script: Script, redis: Redis, key_names: Sequence[str], args: Sequence[Any]) -> Any:
    """The reply of `enqueue.lua`, once the server has confirmed that it keeps what was written."""

    def call(redis: Redis, key_names: Sequence[str], args: Sequence[Any]) -> Any:
        waits = durability(redis).waits()
        # The script writes nothing for an id that exists, and a wait without a write would wait for nothing.
        behind = [("SET", KEY, 1), *(command for _, _, command in waits)]
        reply, (_, *replies) = script.confirmed(redis, key_names, args, behind)
        if isinstance(reply, Exception):
            raise reply
        refuse_unconfirmed(waits, replies)
        return reply

    return _called(call, redis, key_names, args)


def _called(script: Callable[..., Any], redis: Redis, key_names: Sequence[str], args: Sequence[Any]) -> Any:
    """The reply of `enqueue.lua`, or an error of ours for its refusal."""
    try:
        return script(redis, key_names, args)
    except UNAVAILABLE as error:
        raise_ours(error)  # a user's own client raises redis-py's
    except ResponseError as error:
        refuse_cluster(error)
        refusal, _, why = str(error).partition(" ")
        if refusal == "BATCH" and why.startswith("no batch has the id "):
            raise no_such_batch(why.removeprefix("no batch has the id ")) from None
        if refusal == "NODE":
            raise NoSuchNode(f"no node of the flow is called {why}: give what its add() returned") from None
        if refusal == "JOB":
            raise no_such_job(why) from None
        if refusal == "BATCH":
            raise BatchClosed(why) from None
        if refusal == "FULL":
            used, allowed = (int(size) >> 20 for size in why.split()[:2])
            raise ServerFull(
                f"the server uses {used:,} MiB, and jobs are accepted only up to {allowed:,}: let workers "
                "catch up, purge jobs, or raise PACKMULE_MEMORY_HIGH_WATER"
            ) from None
        if isinstance(error, OutOfMemoryError):
            raise ServerFull(
                "the server has reached its maxmemory: let workers catch up, or give it more"
            ) from None
        raise
