"""The drill's jobs in Redis: their states, what is still held for them, and their removal."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, cast

from redis import Redis

from packmule.config import Settings
from packmule.coordination.locks import grants
from packmule.coordination.redis.replies import as_text, pipelined
from packmule.drill.job import LIMITED
from packmule.drill.ledger import State
from packmule.drill.load import BATCH_NAME, LIMIT_KEYS, QUEUES
from packmule.jobs import batch_state, keys
from packmule.jobs.limits import CallLimits
from packmule.observe import errors
from packmule.observe.slots import limits_of

A_TRIP = 1000


def states(client: Redis, ids: Collection[str]) -> dict[str, State]:
    """The state in the record of each of `ids`; jobs without a record are left out."""
    found: dict[str, State] = {}
    each = list(ids)
    for start in range(0, len(each), A_TRIP):
        chunk = each[start : start + A_TRIP]
        with client.pipeline(transaction=False) as pipeline:
            for id in chunk:
                pipeline.hmget(keys.job_key(id), ["status", "deaths"])
            for id, (status, deaths) in zip(chunk, pipeline.execute(), strict=True):
                if status is not None:
                    found[id] = State(as_text(status), int(deaths or 0))
    return found


def held(client: Redis) -> set[str]:
    """The ids of jobs that wait in the drill's queues or behind others, or are claimed by a worker."""
    lists = [keys.queue_key(queue) for queue in QUEUES]
    lists += (keys.group_key(queue, group) for queue in QUEUES for group in _groups())
    commands: list[tuple[Any, ...]] = [("LRANGE", key, 0, -1) for key in lists]
    commands += (("ZRANGE", keys.registry_key("scheduled", queue), 0, -1) for queue in QUEUES)
    ids = {as_text(id) for found in pipelined(client, commands, ()) for id in found}
    return ids | _claimed(client)


def _claimed(client: Redis) -> set[str]:
    """The ids of the drill's jobs that workers hold. Other workers of a shared server hold other jobs."""
    leased = cast(list[bytes], client.zrange(keys.LEASES, 0, -1))
    commands: list[tuple[Any, ...]] = []
    for worker in {*map(as_text, leased), *_registered(client)}:
        commands += ("HKEYS", keys.claims_key(worker)), ("LRANGE", keys.waiting_key(worker), 0, -1)
    ids = list({as_text(id) for found in pipelined(client, commands, ()) for id in found})
    queues = pipelined(client, [("HGET", keys.job_key(id), "origin") for id in ids], None)
    return {id for id, queue in zip(ids, queues, strict=True) if queue and as_text(queue) in QUEUES}


def taken(client: Redis) -> list[str]:
    """The slots that jobs hold, and the groups that have a head or are blocked; none once all jobs ended."""
    named: list[tuple[str, tuple[Any, ...]]] = [
        (keys.groups_key(queue), ("HKEYS", keys.groups_key(queue))) for queue in QUEUES
    ]
    for key in _slots():
        named.append((key, ("HKEYS", keys.holders_key(key))))
        named.append((key, ("ZRANGE", keys.blocked_key(key), 0, -1)))
    replies = pipelined(client, [command for _, command in named], ())
    return [
        f"{name} ({as_text(member)!r})"
        for (name, _), found in zip(named, replies, strict=True)
        for member in found
    ]


def orphaned(client: Redis) -> set[str]:
    """The slots of jobs that no worker claims any more: none, since a rescue frees them in the same step."""
    before = _holders(client)
    # A claim never comes back under the same execution, so a holder that outlasts its claim has none.
    claims = [("HGET", keys.claims_key(worker), job) for _, job, worker, _ in before]
    found = pipelined(client, claims, b"")
    gone = {
        each for each, execution in zip(before, found, strict=True) if as_text(execution or b"") != each[3]
    }
    return {f"{key} ({job!r})" for key, job, *_ in (gone & set(_holders(client)) if gone else ())}


def _holders(client: Redis) -> list[tuple[str, str, str, str]]:
    """Each holder of a slot: the slot's key, the job, its worker and its execution."""
    slots = _slots()
    held = pipelined(client, [("HGETALL", keys.holders_key(key)) for key in slots], {})
    return [
        (key, as_text(job), worker, execution)
        for key, each in zip(slots, held, strict=True)
        for job, holder in each.items()
        for worker, _, execution in [as_text(holder).rpartition(" ")]
    ]


def miscounted(client: Redis, batches: Collection[str]) -> list[str]:
    """The batches that have not ended, or don't count each of their jobs as done."""
    wrong = []
    for id in sorted(batches):
        state = batch_state.read(client, id)
        counts = state.counts
        if state.ended is None or not counts.total == counts.done == client.hlen(
            f"{keys.batch_key(id)}:jobs"
        ):
            wrong.append(id)
    return wrong


def is_used(client: Redis) -> bool:
    """Whether workers serve the drill's queues now, which means that another drill is running."""
    leases = cast(list[bytes], client.zrangebyscore(keys.LEASES, client.time()[0], "+inf"))
    return not _registered(client).isdisjoint(map(as_text, leases))


def clear(client: Redis, known: Collection[str]) -> None:
    """Delete the drill's queues, errors, batches, workers and jobs: `known` ones and those that Redis names.

    A producer that was interrupted has told nobody what it enqueued last, and a killed drill nothing at all.
    """
    batches = _batches(client)
    ids = {*known, *held(client), *_members(client, batches)}
    for queue in QUEUES:
        for status in keys.REGISTRIES:
            members = cast(list[bytes], client.zrange(keys.registry_key(status, queue), 0, -1))
            ids |= {as_text(member).partition(":")[0] for member in members}
    key_names = [key for id in ids for key in (keys.job_key(id), keys.results_key(id))]
    for worker in _registered(client):
        key_names += keys.claims_key(worker), keys.waiting_key(worker), keys.worker_key(worker)
        client.zrem(keys.LEASES, worker)
        client.srem(keys.WORKERS, keys.worker_key(worker))
    key_names += (key for each in _limits() if each.lock for key in grants.keys(f"singleton {each.lock}"))
    kinds = keys.holders_key, keys.weights_key, keys.blocked_key
    key_names += (key_of(slot) for slot in _slots() for key_of in kinds)
    for id in batches:
        key_names += (f"{keys.batch_key(id)}{part}" for part in ("", ":jobs", ":results", ":held"))
        client.zrem(keys.BATCHES, id)
    for queue in QUEUES:
        key_names += keys.queue_key(queue), keys.groups_key(queue), _workers_key(queue)
        key_names += (keys.registry_key(status, queue) for status in keys.REGISTRIES)
        key_names += (keys.group_key(queue, group) for group in _groups())
        client.zrem(keys.DUE, *(keys.blocked_name(queue, group) for group in _groups()))
        client.srem(keys.QUEUES, keys.queue_key(queue))
    for start in range(0, len(key_names), A_TRIP):
        client.delete(*key_names[start : start + A_TRIP])
    for each in errors.read_all(client):
        if each.queues and set(each.queues) <= set(QUEUES):
            errors.forget(client, each.fingerprint)


def _batches(client: Redis) -> list[str]:
    """The ids of the drill's batches, sealed or not."""
    ids = [as_text(id) for id in cast(list[bytes], client.zrange(keys.BATCHES, 0, -1))]
    names = pipelined(client, [("HGET", keys.batch_key(id), "name") for id in ids], None)
    return [id for id, name in zip(ids, names, strict=True) if name == BATCH_NAME.encode()]


def _members(client: Redis, batches: Collection[str]) -> set[str]:
    """The ids of the batches' jobs and of those that are to follow them."""
    keyed = [keys.batch_key(id) for id in batches]
    commands: list[tuple[Any, ...]] = [("HKEYS", f"{key}:jobs") for key in keyed]
    commands += (("HMGET", key, "on_complete") for key in keyed)
    return {as_text(id) for found in pipelined(client, commands, ()) for id in found if id}


def _registered(client: Redis) -> set[str]:
    """The names of the workers that serve the drill's queues, or served them until they were killed."""
    members = cast(set[bytes], client.sunion([_workers_key(queue) for queue in QUEUES]))
    return {keys.worker_name(as_text(member)) for member in members}


def _limits() -> list[CallLimits]:
    """The limits of all of the drill's calls."""
    types = [function.job.limits for function in LIMITED]
    calls = [{"key": key, "cost": 1} for key in range(LIMIT_KEYS)]
    return [limits.of(call) for limits in types if limits for call in calls]


def _groups() -> list[str]:
    return [each.group for each in _limits()]


def _slots() -> list[str]:
    """The keys of their slots and singletons, those of this host's slots among them."""
    limits = [limit for each in _limits() for limit in limits_of("", each.limits.encode())]
    found = {limit.key: limit.per_host for limit in limits if limit.kind != "rate"}
    host = keys.host_name(Settings.from_env().machine)
    return [*found, *(keys.key_of_host(key, host) for key, per_host in found.items() if per_host)]


def _workers_key(queue: str) -> str:
    return f"{keys.WORKERS}:{queue}"
