"""What must hold in the whole keyspace after each step, whatever the steps were."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from packmule.jobs import wire
from packmule.tests.model.keyspace import Keyspace

PENDING = {"p": wire.ALIVE, "d": {"finished"}, "f": {"failed", "stopped"}, "c": {"canceled"}}
"""A batch's letter for a job, and the statuses that it stands for."""

COUNTERS = {"d": "done", "f": "failed", "c": "canceled"}

EXPIRING = (
    "pm:deleted:",
    "pm:gone:",
    "pm:due-watcher",
    "pm:rate:",
    "pm:unwritten:",
    "pm:progress:",
    "pm:turn:",
    "pm:hosted",
    "pm:host-idle",
    "rq:scheduler-lock:",
)
"""How keys begin that always have an expiry."""


@dataclass
class Allowed:
    """What others than our scripts did to jobs, which may be where they should not be."""

    loose: set[str] = field(default_factory=set)
    """Jobs that RQ's code or a canceled batch left in the lists where they waited."""
    requeued: set[str] = field(default_factory=set)
    """Jobs that RQ's code enqueued again: it asks for no place, group or batch."""


def violations(space: Keyspace, allowed: Allowed) -> Iterator[str]:
    """What is wrong in `space`, each in a sentence."""
    yield from _places(space, allowed)
    yield from _slots(space, allowed)
    yield from _weights(space)
    yield from _groups(space, allowed)
    for key in space.banded - space.values.get("pm:bands", {}).keys():
        yield f"no claim looks at the bands of {key}"
    yield from _batches(space, allowed)
    yield from _unique_places(space, allowed)
    yield from _expiries(space, allowed)
    for text in space.values.get("pm:quarantine", ()):
        if not json.loads(text)["reason"].startswith("its callback was given up"):
            yield f"something was set aside: {text}"


def _places(space: Keyspace, allowed: Allowed) -> Iterator[str]:
    places, ended = space.places(), space.ended_places()
    for id, record in space.records.items():
        status, spots = record.get("status", ""), places.get(id, [])
        registered = ended.get(id, [])
        if is_calling_back(record):
            if id in allowed.requeued and spots:
                continue  # RQ's code enqueued it while its callback was called
            if len(spots) != 1 or spots[0].split()[0] not in {"queue", "group", "moved", "claimed"}:
                yield f"job {id} is {status}, its callback is due, and it has these places: {spots}"
        elif status in wire.ALIVE:
            if id in allowed.loose and spots:
                continue
            if len(spots) != 1:
                yield f"job {id} is {status} and has these places: {spots}"
            elif not _fits(status, spots[0]):
                yield f"job {id} is {status} and has the place {spots[0]}"
            if registered:
                yield f"job {id} is {status} and is registered as {registered}"
        else:
            own = "failed" if status == "stopped" else status
            if registered != [own]:
                yield f"job {id} is {status} and is registered as {registered}"
            # A canceled job that a blocking move brought stays there, and the next claim passes it over.
            left = [spot for spot in spots if status != "canceled" or not spot.startswith("moved")]
            if left and id not in allowed.loose:
                yield f"job {id} is {status} and still has these places: {spots}"
    yield from _claims(space, allowed, places)
    yield from _started(space, allowed)


def _claims(space: Keyspace, allowed: Allowed, places: dict[str, list[str]]) -> Iterator[str]:
    for id, spots in places.items():
        if id not in space.records and id not in allowed.loose:
            yield f"job {id} has no record and these places: {spots}"
        claimed = [spot for spot in spots if spot.startswith("claimed")]
        if len(claimed) > 1 and id not in allowed.requeued:
            yield f"job {id} is claimed twice: {spots}"


def is_calling_back(record: dict[str, str]) -> bool:
    """Whether a job's outcome is recorded, and its callback or webhooks are due."""
    return record.get("callback_due", "").split(" ")[1:2] == [record.get("status", "")]


def _fits(status: str, spot: str) -> bool:
    kind = spot.split(maxsplit=1)[0]
    return (
        kind
        in {
            "queued": {"queue", "group", "held", "moved", "claimed"},
            "started": {"claimed"},
            "scheduled": {"scheduled"},
            "deferred": {"deferred"},
        }[status]
    )


def _started(space: Keyspace, allowed: Allowed) -> Iterator[str]:
    """The registry of started jobs names exactly the executions of jobs that are marked as started."""
    marked = {each for executions in space.registries["wip"].values() for each in executions}
    for worker, claims in space.claims.items():
        for id, execution in claims.items():
            is_started = space.status(id) == "started"
            if is_started and space.records[id].get("worker_name") != worker:
                yield f"job {id} is claimed by {worker} and started by another"
            if is_started and f"{id}:{execution}" not in marked:
                yield f"job {id} is started and its execution isn't registered"
            marked.discard(f"{id}:{execution}")
    for each in marked:
        if each.partition(":")[0] not in allowed.loose:
            yield f"the execution {each} is registered and nobody claims it"


def needs(record: dict[str, str]) -> list[tuple[str, int]]:
    """The slots that a job needs: keys, and how many there are."""
    return [(limit[1], limit[2]) for limit in json.loads(record.get("limits") or "[]") if limit[0] != "rate"]


def _slots(space: Keyspace, allowed: Allowed) -> Iterator[str]:
    for key, holders in space.holders.items():
        for id, holder in holders.items():
            worker, _, execution = holder.rpartition(" ")
            if space.claims.get(worker, {}).get(id) != execution and id not in allowed.loose:
                yield f"job {id} holds a slot of {key} for {holder}, which doesn't claim it"
    for worker, claims in space.claims.items():
        for id, execution in claims.items():
            for key, most in needs(space.records.get(id, {})):
                held = space.holders.get(key, {})
                if held.get(id) != f"{worker} {execution}":
                    yield f"job {id} is claimed without its slot of {key}"
                if len(held) > most:
                    yield f"{len(held)} jobs hold the {most} slots of {key}"


def _weights(space: Keyspace) -> Iterator[str]:
    """What the holders of slots have beyond one each, and the sum of that, are as their records say."""
    for key in {*space.weights, *space.holders}:
        more = {}
        for id in space.holders.get(key, {}):
            for kind, name, _, *cost in json.loads(space.records.get(id, {}).get("limits") or "[]"):
                if kind == "slots" and name == key and cost and cost[0] > 1:
                    more[id] = str(cost[0] - 1)
        found = dict(space.weights.get(key, {}))
        if int(found.pop("", "0")) != sum(map(int, more.values())) or found != more:
            yield f"the holders of {key} have {space.weights.get(key)} beyond one slot each, and not {more}"


def _groups(space: Keyspace, allowed: Allowed) -> Iterator[str]:
    unblocking = {name for names in space.blocked.values() for name in names} | set(space.due)
    for queue, heads in space.heads.items():
        waiting = {*space.queues.get(queue, ()), *(id for ids in space.waiting.values() for id in ids)}
        for group, head in heads.items():
            if head == "" and f"{queue}\n{group}" not in unblocking:
                yield f"group {group} of {queue} is blocked, and nothing unblocks it"
            if head and head not in waiting and head not in allowed.loose:
                yield f"group {group} of {queue} has the head {head}, which doesn't wait"
    for name, ids in space.groups.items():
        queue, _, group = name.partition(":")
        if group not in space.heads.get(queue, {}) and not set(ids) <= allowed.loose:
            yield f"group {group} of {queue} has jobs and neither a head nor a block: {ids}"


def _batches(space: Keyspace, allowed: Allowed) -> Iterator[str]:
    for batch, fields in space.batches.items():
        states = space.batch_jobs.get(batch, {})
        counted = {name: int(fields.get(name, 0)) for name in ("total", *COUNTERS.values())}
        found = {name: list(states.values()).count(letter) for letter, name in COUNTERS.items()}
        if counted != {"total": len(states), **found}:
            yield f"batch {batch} counts {counted}, and its jobs are {states}"
        pending = [id for id, state in states.items() if state == "p"]
        if "sealed" in fields and not pending and "ended" not in fields:
            yield f"batch {batch} is sealed, all its jobs have ended, and it goes on"
        if "ended" in fields and pending:
            yield f"batch {batch} has ended, and jobs are pending: {pending}"
        for id, state in states.items():
            yield from _counted(space, batch, id, state, allowed)


def _counted(space: Keyspace, batch: str, id: str, state: str, allowed: Allowed) -> Iterator[str]:
    if id.startswith("batch:"):
        inner = space.batches.get(id.removeprefix("batch:"))
        if inner is not None and ("ended" in inner) != (state != "p"):
            yield f"batch {batch} counts {id} as {state}, and its fields are {inner}"
        return
    status = space.status(id)
    if id in allowed.loose or id in allowed.requeued:
        return
    if status is None:
        if state == "p":
            yield f"batch {batch} waits for job {id}, which is gone"
    elif status not in PENDING[state]:
        yield f"batch {batch} counts job {id} as {state}, and it is {status}"


def _unique_places(space: Keyspace, allowed: Allowed) -> Iterator[str]:
    alive: dict[str, list[str]] = {}
    for id, record in space.records.items():
        if "unique" in record and record.get("status") in wire.ALIVE and id not in allowed.requeued:
            alive.setdefault(record["unique"], []).append(id)
    for key, ids in alive.items():
        holder, _, till = space.unique.get(key, "").partition(" ")
        if "life" in key or key.startswith("singleton "):
            if len(ids) > 1:
                yield f"jobs {ids} are alive and have the same place {key}"
            if holder != ids[0]:
                yield f"job {ids[0]} is alive, and {holder or 'nobody'} holds its place {key} until {till}"
        elif not holder:
            yield f"job {ids[0]} is alive, and nobody holds its place {key}"


def _expiries(space: Keyspace, allowed: Allowed) -> Iterator[str]:
    for key in space.values:
        if key.startswith(EXPIRING) and key not in space.expiring:
            yield f"the key {key} never expires"
    yield from _expiring_batches(space)
    yield from _expiring_steps(space, allowed)
    for id, record in space.records.items():
        is_expiring = f"rq:job:{id}" in space.expiring
        status = record.get("status")
        if is_calling_back(record):
            continue
        if status in wire.ALIVE and is_expiring and id not in allowed.requeued:
            yield f"job {id} is {status} and expires"
        ttl = record.get("result_ttl" if status == "finished" else "failure_ttl")
        if status in wire.ENDED and not is_expiring and id not in allowed.loose and ttl != "-1":
            yield f"job {id} is {status} and never expires"
        results = f"rq:results:{id}"
        if is_expiring and results in space.values and results not in space.expiring:
            yield f"the results of job {id} never expire, and its record does"
    for key in space.values:
        is_left = key.startswith("rq:results:") and key.removeprefix("rq:results:") not in space.records
        is_rqs = key.removeprefix("rq:results:") in allowed.loose
        if is_left and key not in space.expiring and not is_rqs:
            yield f"{key} is left without a record, and never expires"


def _expiring_batches(space: Keyspace) -> Iterator[str]:
    for batch, fields in space.batches.items():
        for key in (f"pm:batch:{batch}", f"pm:batch:{batch}:jobs", f"pm:batch:{batch}:results"):
            if "ended" in fields and key in space.values and key not in space.expiring:
                yield f"batch {batch} has ended, and {key} never expires"


def _expiring_steps(space: Keyspace, allowed: Allowed) -> Iterator[str]:
    for key in space.values:
        id = key.removeprefix("pm:steps:")
        if id == key or id in allowed.loose:
            continue
        if id not in space.records or "steps" not in space.records[id]:
            if key not in space.expiring:
                yield f"{key} is left without a record that knows of it, and never expires"
        elif f"rq:job:{id}" in space.expiring and key not in space.expiring:
            yield f"{key} never expires, and its record does"
        elif space.status(id) in wire.ALIVE and key in space.expiring:
            yield f"job {id} is {space.status(id)}, and its steps expire"


def lost_signals(space: Keyspace, sent: Mapping[str, Collection[str]]) -> Iterator[str]:
    """The signals that their jobs have not, or twice."""
    for id, data in sent.items():
        record = space.records.get(id, {})
        if not record or "repeats_left" in record or "debounced_since" in record:
            continue  # one begins anew with each repeat, and one is replaced with what it had
        kept = [value for field, value in record.items() if field.startswith("signal:")]
        taken = [
            value.rpartition(",")[2].rstrip("]") for value in space.values.get(f"pm:steps:{id}", {}).values()
        ]
        for each in data:
            if (times := [*kept, *taken].count(each)) != 1:
                yield f"signal {each} reached job {id} {times} times"


CHANGES: dict[tuple[str | None, str | None], Collection[str]] = {
    (None, "queued"): ("enqueued",),
    (None, "scheduled"): ("scheduled",),
    ("scheduled", "queued"): ("promoted", "signaled"),
    ("deferred", "queued"): ("enqueued", "signaled"),
    ("queued", "deferred"): ("waiting",),
    ("started", "deferred"): ("waiting",),
    ("queued", "started"): ("started",),
    ("queued", "scheduled"): ("retried", "finished", "waiting"),
    ("started", "scheduled"): ("retried", "finished", "waiting"),
    ("started", "queued"): ("retried", "returned", "rescued", "finished", "waiting"),
    ("scheduled", None): ("canceled",),
    ("canceled", None): ("canceled",),
    ("queued", None): ("finished", "canceled"),
    ("started", None): ("finished",),
}


def silent_changes(before: Keyspace, after: Keyspace, foreign: Collection[str]) -> Iterator[str]:
    """The jobs whose status changed without an event that says so, except `foreign` ones."""
    events: dict[str, set[str]] = {}
    for kind, id in after.events:
        events.setdefault(id, set()).add(kind)
    for id in before.records.keys() | after.records.keys():
        old, new = before.status(id), after.status(id)
        is_called_back = is_calling_back(before.records.get(id, {}))
        if (
            id in foreign
            or is_called_back
            or old == new
            or (new is None and f"rq:job:{id}" in before.expiring)
        ):
            continue
        if old == "deferred" and new is None:
            continue  # a callback that isn't wanted
        expected = CHANGES.get((old, new), ())
        if new in wire.ENDED:
            expected = (new,)
        elif old in wire.ENDED:
            expected = ("enqueued",)
        if not events.get(id, set()) & set(expected) and expected:
            yield f"job {id} was {old} and is {new}, and the events say {sorted(events.get(id, ()))}"
        if not expected and (old, new) != (None, "deferred"):
            yield f"job {id} was {old} and is {new}: nothing should do that"
