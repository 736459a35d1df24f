"""Schedule store: add, read, pause and remove schedules in Redis, and sync those of a deploy."""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from redis import Redis
from redis.exceptions import ResponseError

from packmule.coordination.redis.replies import as_text
from packmule.coordination.redis.scripts import Script
from packmule.errors import NotFound, UsageError, meant
from packmule.jobs import keys, schedule_ledger
from packmule.jobs.schedule import InvalidSchedule, Schedule, read

SCHEDULES = "pm:schedules"
NEXT = "pm:schedule-due"
KEPT_SECONDS = 30 * 86_400
"""How long the state of a deleted schedule is kept, in case it comes back."""

MOST_NAMES = 10
"""Schedules that a deploy's log line names; it counts the others."""

log = logging.getLogger("packmule.scheduler")

_put = Script("jobs", "put_schedule")


class NoSuchSchedule(NotFound, LookupError):
    """There is no schedule of that name."""


class ScheduleRemoved(UsageError, ValueError):
    """An operator removed the schedule, so it can't be paused."""


class NameTaken(UsageError, ValueError):
    """A schedule of that name exists and the caller may not change it."""


@dataclass(frozen=True, slots=True)
class StoredSchedule:
    """A schedule and its state: active, paused, removed, ended or faulty.

    `due_at` is the Unix time at which the scheduler checks it next. All ticks up to the Unix time `last` are
    decided; `job` is the id of the last job. If the record can't be read, `schedule` is None and `fault` says
    why.
    """

    name: str
    schedule: Schedule | None
    state: str
    due_at: float | None
    last: int | None
    job: str | None
    fault: str | None


def put(client: Redis, schedule: Schedule, replace: bool = False) -> str:
    """Store a schedule, or with `replace` change it; return "new", "changed" or "same".

    Ticks before now are not enqueued. Raises `NameTaken`.
    """
    outcome = _put_record(client, schedule, replace)
    if outcome == "exists":
        raise NameTaken(f"schedule {schedule.name} already exists: --replace changes it")
    if outcome not in ("new", "changed", "same"):
        raise NameTaken(
            f"schedule {schedule.name} belongs to the {outcome}: change it there, or pause or remove it"
        )
    return outcome


def sync(
    client: Redis,
    schedules: Sequence[Schedule],
    owner: str,
    source: str = "",
    may_go: Callable[[Schedule], bool] = lambda schedule: True,
) -> list[str]:
    """Make the schedules of `owner` (and `source`) those of a deploy; return a line for each that failed.

    New, changed and dropped schedules are logged. Operators win over deploys: what they paused stays paused,
    what they removed stays removed, and what they added is not touched. A schedule that is no longer deployed
    is dropped if it `may_go`: code that isn't loaded here may declare it elsewhere.
    """
    faults = []
    done: dict[str, list[str]] = {"new": [], "changed": [], "same": [], "dropped": []}
    stored = {entry.name: entry for entry in entries(client)}
    for schedule in schedules:
        entry = stored.get(schedule.name)
        if entry is None or entry.schedule != schedule:
            outcome = _put_record(client, schedule, True)
            if outcome in done:
                done[outcome].append(schedule.name)
            else:
                faults.append(
                    f"schedule {schedule.name} of the {owner} is not stored: the {outcome} has that name"
                )
    wanted = {schedule.name for schedule in schedules}
    for entry in stored.values():
        found = entry.schedule
        if found is None or (found.owner, found.source) != (owner, source) or entry.name in wanted:
            continue
        if may_go(found):
            _forget(client, entry.name, entry.state in ("removed", "paused"))
            done["dropped"].append(entry.name)
    _log_deploy(owner, done)
    return faults


def entries(client: Redis, names: Iterable[str] | None = None) -> list[StoredSchedule]:
    """All schedules, or those called `names`, sorted by name. Takes two round trips."""
    if names is None:
        records = _pairs(client)
    else:
        wanted = list(names)
        found: Any = client.hmget(SCHEDULES, wanted)
        records = {name: record for name, record in zip(wanted, found, strict=True) if record is not None}
    ordered = sorted(records)
    with client.pipeline(transaction=False) as pipeline:
        pipeline.zmscore(NEXT, ordered or [""])
        for name in ordered:
            pipeline.hgetall(state_key(name))
        dues, *states = pipeline.execute(raise_on_error=False)
    if not isinstance(dues, list):  # the key holds another type
        dues = [None] * len(ordered)
    return [
        _entry(name, records[name], state, due)
        for name, state, due in zip(ordered, states, dues[: len(ordered)], strict=True)
    ]


def known(client: Redis, names: Iterable[str]) -> list[StoredSchedule]:
    """The schedules called `names`, each once. Raises `NoSuchSchedule`, which lists all unknown names."""
    wanted = list(dict.fromkeys(names))
    found = {entry.name: entry for entry in entries(client, wanted)}
    if unknown := [name for name in wanted if name not in found]:
        # A declared schedule has its job's name, with hyphens for dots.
        near = meant(unknown[0].replace(".", "-"), _pairs(client)) if len(unknown) == 1 else None
        hint = f"did you mean {near}?" if near else "see packmule schedule list"
        raise NoSuchSchedule(f"no schedule is called {' or '.join(map(repr, unknown))}: {hint}")
    return [found[name] for name in wanted]


def entry(client: Redis, name: str) -> StoredSchedule:
    """The schedule called `name`. Raises `NoSuchSchedule`."""
    return known(client, [name])[0]


def pause(client: Redis, *names: str) -> list[str]:
    """Pause schedules, whatever deploys declare; return the names of those that were not paused.

    Raises `NoSuchSchedule` or `ScheduleRemoved` before it changes anything.
    """
    found = known(client, names)
    if removed := [each.name for each in found if each.state == "removed"]:
        raise ScheduleRemoved(
            f"{', '.join(removed)}: a removed schedule can't be paused; "
            f"packmule schedule resume {' '.join(removed)} brings it back"
        )
    with client.pipeline() as pipeline:
        for each in found:
            pipeline.hset(state_key(each.name), "paused", "1")
            pipeline.zrem(NEXT, each.name)
        pipeline.execute()
    return [each.name for each in found if each.state != "paused"]


def resume(client: Redis, *names: str) -> list[str]:
    """Resume paused or removed schedules from now on; return their names.

    Raises `NoSuchSchedule` before it changes anything.
    """
    found = [each for each in known(client, names) if each.state in ("paused", "removed")]
    now = int(client.time()[0])
    with client.pipeline() as pipeline:
        for each in found:
            pipeline.hdel(state_key(each.name), "paused", "removed", "ended", "held")
            pipeline.hset(state_key(each.name), "last", str(max(now, each.last or 0)))
            pipeline.zadd(NEXT, {each.name: now})
        pipeline.execute()
    with contextlib.suppress(ResponseError):  # not permitted: the leader finds it a little later
        client.publish(keys.SCHEDULER, "0")
    return [each.name for each in found]


def remove(client: Redis, *names: str) -> dict[str, str]:
    """Remove schedules, for good even if code or a file declares them; return the owner of each by name.

    Raises `NoSuchSchedule` before it changes anything.
    """
    return {each.name: _remove(client, each) for each in known(client, names)}


def instant(text: str) -> int | None:
    """A field of a state as whole Unix seconds, None if it is not such a number."""
    return int(text) if re.fullmatch("[0-9]{1,15}", text) else None


def state_key(name: str) -> str:
    """The hash of a schedule's state."""
    return f"pm:schedule:{name}"


def _log_deploy(owner: str, done: dict[str, list[str]]) -> None:
    for outcome in ("new", "changed", "dropped"):
        if names := done[outcome]:
            more = f" and {len(names) - MOST_NAMES:,} more" if len(names) > MOST_NAMES else ""
            log.info("schedules of the %s, %s: %s%s", owner, outcome, ", ".join(names[:MOST_NAMES]), more)


def _put_record(client: Redis, schedule: Schedule, replace: bool) -> str:
    key_names = [SCHEDULES, state_key(schedule.name), NEXT]
    record = msgspec.json.encode(schedule)
    args = [schedule.name, record, schedule.owner, int(schedule.paused), int(replace)]
    return as_text(_put(client, key_names, args))


def _remove(client: Redis, found: StoredSchedule) -> str:
    name, state = found.name, state_key(found.name)
    owner = found.schedule.owner if found.schedule else "operator"
    if owner == "operator":
        _forget(client, name, False)
        if not client.hget(state, "shadows"):  # it replaced none that was removed
            return owner
    with client.pipeline() as pipeline:
        pipeline.hset(state, "removed", str(int(time.time())))
        pipeline.persist(state)
        pipeline.zrem(NEXT, name)
        pipeline.execute()
    return owner


def _forget(client: Redis, name: str, keeps_flags: bool) -> None:
    """Delete a record. With `keeps_flags` its state is kept for good: an operator paused or removed it."""
    with client.pipeline() as pipeline:
        pipeline.hdel(SCHEDULES, name)
        pipeline.zrem(NEXT, name)
        pipeline.expire(schedule_ledger.ticks_key(name), KEPT_SECONDS)
        if not keeps_flags:
            pipeline.hdel(state_key(name), "paused")
            pipeline.expire(state_key(name), KEPT_SECONDS)
        pipeline.execute()


def _pairs(client: Redis) -> dict[str, bytes]:
    try:
        records: Any = client.hgetall(SCHEDULES)
    except ResponseError:  # the key holds another type: the leader sets it aside
        return {}
    return {as_text(name): record for name, record in records.items()}


def _entry(name: str, record: bytes, state: Any, due: Any) -> StoredSchedule:
    fields = {as_text(key): as_text(value) for key, value in state.items()} if isinstance(state, dict) else {}
    fault = fields.get("fault")
    schedule = None
    try:
        schedule = read(record, name)
    except InvalidSchedule as error:
        fault = str(error)
    state_name = next((each for each in ("removed", "paused", "ended") if each in fields), "active")
    return StoredSchedule(
        name,
        schedule,
        "faulty" if fault and state_name == "active" else state_name,
        due if isinstance(due, float) else None,
        instant(fields.get("last", "")),
        fields.get("job"),
        fault,
    )
