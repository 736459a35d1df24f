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

from packmule.coordination.redis.scripts import Script
from packmule.jobs import wire
from packmule.scheduler.schedules.schedule import InvalidSchedule, Schedule, read

SCHEDULES = "pm:schedules"
NEXT = "pm:schedule-due"
KEPT_SECONDS = 30 * 86_400
"""How long it is remembered up to when a schedule that is gone was decided, so that it can come back."""

LEDGER_ENTRIES = 500
NAMES_TOLD = 10
"""As many schedules are named where a deploy says of more what became of them."""

log = logging.getLogger("packmule.scheduler")

_put = Script("scheduler.schedules", "put_schedule", after=wire.CALL)


class NoSuchSchedule(LookupError):
    """No schedule of that name."""


class Removed(ValueError):
    """An operator removed that schedule, which is more than pausing it."""


class NameTaken(ValueError):
    """A schedule of that name is there already, and is not the caller's to change."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A schedule and how it stands: `state` is active, paused, removed, ended or faulty.

    `due_at` is the Unix time at which a scheduler looks at it next, `last` that up to which its ticks are
    decided. `schedule` is None where the record can't be read, and `fault` says why.
    """

    name: str
    schedule: Schedule | None
    state: str
    due_at: float | None
    last: int | None
    job: str | None
    fault: str | None


def put(client: Redis, schedule: Schedule, replace: bool = False) -> str:
    """Enter a schedule, or with `replace` change it: "new", "changed" or "same". Ticks count from now on.

    Raises `NameTaken`.
    """
    said = _enter(client, schedule, replace)
    if said == "there":
        raise NameTaken(f"schedule {schedule.name} is there already: --replace changes it")
    if said not in ("new", "changed", "same"):
        raise NameTaken(
            f"schedule {schedule.name} belongs to the {said}: change it there, or pause or remove it"
        )
    return said


def sync(
    client: Redis,
    schedules: Sequence[Schedule],
    owner: str,
    source: str = "",
    may_go: Callable[[Schedule], bool] = lambda schedule: True,
) -> list[str]:
    """Make those of `owner` (and `source`) what a deploy says; what could not be done, a line each.

    What is new, changed or dropped is logged.
    What an operator paused stays paused, what he removed stays removed, and what he added is not touched.
    One that the deploy says no more goes, if it `may_go`: code that isn't loaded here may say it elsewhere.
    """
    faults = []
    done: dict[str, list[str]] = {"new": [], "changed": [], "same": [], "dropped": []}
    there = {entry.name: entry for entry in entries(client)}
    for schedule in schedules:
        entry = there.get(schedule.name)
        if entry is None or entry.schedule != schedule:
            said = _enter(client, schedule, True)
            if said in done:
                done[said].append(schedule.name)
            else:
                faults.append(
                    f"schedule {schedule.name} of the {owner} is left out: the {said} has that name"
                )
    wanted = {schedule.name for schedule in schedules}
    for entry in there.values():
        found = entry.schedule
        if found is None or (found.owner, found.source) != (owner, source) or entry.name in wanted:
            continue
        if may_go(found):
            _forget(client, entry.name, entry.state in ("removed", "paused"))
            done["dropped"].append(entry.name)
    for said in ("new", "changed", "dropped"):
        if names := done[said]:
            more = f" and {len(names) - NAMES_TOLD:,} more" if len(names) > NAMES_TOLD else ""
            log.info("schedules of the %s, %s: %s%s", owner, said, ", ".join(names[:NAMES_TOLD]), more)
    return faults


def entries(client: Redis, names: Iterable[str] | None = None) -> list[Entry]:
    """All schedules by name, or some. Two round trips."""
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
    if not isinstance(dues, list):  # of another type
        dues = [None] * len(ordered)
    return [
        _entry(name, records[name], state, due)
        for name, state, due in zip(ordered, states, dues[: len(ordered)], strict=True)
    ]


def known(client: Redis, names: Iterable[str]) -> list[Entry]:
    """The schedules called so, each once. Raises `NoSuchSchedule`, which names all that there aren't."""
    wanted = list(dict.fromkeys(names))
    found = {entry.name: entry for entry in entries(client, wanted)}
    if unknown := [repr(name) for name in wanted if name not in found]:
        raise NoSuchSchedule(
            f"no schedule is called {' or '.join(unknown)}: packmule schedule list lists them"
        )
    return [found[name] for name in wanted]


def entry(client: Redis, name: str) -> Entry:
    """The schedule called `name`. Raises `NoSuchSchedule`."""
    return known(client, [name])[0]


def ledger(client: Redis, name: str, most: int = LEDGER_ENTRIES) -> list[dict[str, Any]]:
    """The last ticks of a schedule, the newest last.

    `tick` and, for several at once, `to` are Unix times; `did` is enqueued, skipped or failed, with `why` and
    `job`; `at` is when that was decided.
    """
    found = []
    for line in client.lrange(ticks_key(name), -most, -1):
        try:
            found.append(msgspec.json.decode(line, type=dict[str, Any]))
        except msgspec.DecodeError:
            continue
    return found


def pause(client: Redis, *names: str) -> list[str]:
    """Let schedules rest, whatever deploys say; the names of those that did not before.

    Raises `NoSuchSchedule`, and `Removed`, before anything is done.
    """
    found = known(client, names)
    if removed := [each.name for each in found if each.state == "removed"]:
        raise Removed(
            f"{', '.join(removed)}: what was removed can't be paused; "
            f"packmule schedule resume {' '.join(removed)} brings it back"
        )
    with client.pipeline() as pipeline:
        for each in found:
            pipeline.hset(state_key(each.name), "paused", "1")
            pipeline.zrem(NEXT, each.name)
        pipeline.execute()
    return [each.name for each in found if each.state != "paused"]


def resume(client: Redis, *names: str) -> list[str]:
    """Let schedules that were paused or removed go on from now; their names.

    Raises `NoSuchSchedule` before anything is done.
    """
    found = [each for each in known(client, names) if each.state in ("paused", "removed")]
    now = int(client.time()[0])
    with client.pipeline() as pipeline:
        for each in found:
            pipeline.hdel(state_key(each.name), "paused", "removed", "ended", "held")
            pipeline.hset(state_key(each.name), "last", str(max(now, each.last or 0)))
            pipeline.zadd(NEXT, {each.name: now})
        pipeline.execute()
    with contextlib.suppress(ResponseError):  # who may not publish is heard of a little later
        client.publish(wire.SCHEDULER, "0")
    return [each.name for each in found]


def remove(client: Redis, *names: str) -> dict[str, str]:
    """Remove schedules and return whose each was: those of code or a file stay away when these are deployed.

    Raises `NoSuchSchedule` before anything is done.
    """
    return {each.name: _remove(client, each) for each in known(client, names)}


def instant(text: str) -> int | None:
    """The Unix seconds that a state's field tells, None for what is no such number."""
    return int(text) if re.fullmatch("[0-9]{1,15}", text) else None


def state_key(name: str) -> str:
    """The hash of what happened to a schedule."""
    return f"pm:schedule:{name}"


def ticks_key(name: str) -> str:
    """The list of a schedule's last ticks."""
    return f"pm:ticks:{name}"


def _enter(client: Redis, schedule: Schedule, replace: bool) -> str:
    keys = [SCHEDULES, state_key(schedule.name), NEXT]
    record = msgspec.json.encode(schedule)
    args = [schedule.name, record, schedule.owner, int(schedule.paused), int(replace)]
    return wire.text(_put(client, keys, args))


def _remove(client: Redis, found: Entry) -> str:
    name, state = found.name, state_key(found.name)
    owner = found.schedule.owner if found.schedule else "operator"
    if owner == "operator":
        _forget(client, name, False)
        if not client.hget(state, "shadows"):  # else what it stood in for was removed as well
            return owner
    with client.pipeline() as pipeline:
        pipeline.hset(state, "removed", str(int(time.time())))
        pipeline.persist(state)
        pipeline.zrem(NEXT, name)
        pipeline.execute()
    return owner


def _forget(client: Redis, name: str, keeps_flags: bool) -> None:
    """Delete a record; that an operator had removed or paused it is remembered for good where it counts."""
    with client.pipeline() as pipeline:
        pipeline.hdel(SCHEDULES, name)
        pipeline.zrem(NEXT, name)
        pipeline.expire(ticks_key(name), KEPT_SECONDS)
        if not keeps_flags:
            pipeline.hdel(state_key(name), "paused")
            pipeline.expire(state_key(name), KEPT_SECONDS)
        pipeline.execute()


def _pairs(client: Redis) -> dict[str, bytes]:
    try:
        records: Any = client.hgetall(SCHEDULES)
    except ResponseError:  # of another type: the leader sets it aside
        return {}
    return {wire.text(name): record for name, record in records.items()}


def _entry(name: str, record: bytes, state: Any, due: Any) -> Entry:
    fields = (
        {wire.text(key): wire.text(value) for key, value in state.items()} if isinstance(state, dict) else {}
    )
    fault = fields.get("fault")
    schedule = None
    try:
        schedule = read(record, name)
    except InvalidSchedule as error:
        fault = str(error)
    stands = next((each for each in ("removed", "paused", "ended") if each in fields), "active")
    return Entry(
        name,
        schedule,
        "faulty" if fault and stands == "active" else stands,
        due if isinstance(due, float) else None,
        instant(fields.get("last", "")),
        fields.get("job"),
        fault,
    )
