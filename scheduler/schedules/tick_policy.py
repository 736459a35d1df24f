"""Tick policy: decide without Redis what happens to a tick; the periodic enqueuer writes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from packmule.jobs import wire
from packmule.jobs.cron import previous
from packmule.jobs.schedule import Schedule

LATE = 15.0
"""Seconds after which a tick counts as missed: well above the time that a change of leaders takes."""

RECHECK_INTERVAL = 0.5
"""Seconds between two checks whether the job that a tick waits for has ended."""


class Step(NamedTuple):
    """One decision about a schedule; after it, all ticks up to `last` are decided.

    If `did` is "enqueued", `tick` is enqueued. If it is "skipped", the ticks from `tick` up to `to` are not
    enqueued, because of `why`. `held` is a tick that waits.
    """

    last: int
    did: str = ""
    tick: int = 0
    to: int = 0
    why: str = ""
    held: int = 0


def entry_of(step: Step, now: float, job: str = "") -> bytes:
    """The ledger's entry for a `step` at the time `now`, with its `job`; empty if it decides no tick."""
    if not step.did:
        return b""
    entry: dict[str, Any] = {"tick": step.tick, "did": step.did, "at": round(now, 3)}
    if step.to > step.tick:
        entry["to"] = step.to
    if step.why:
        entry["why"] = step.why
    if job:
        entry["job"] = job
    return msgspec.json.encode(entry)


@dataclass
class Due:
    """A due schedule as it was read: the tick that it `held`, its last `job` and that job's `status`."""

    name: str
    record: bytes
    last: str
    held: str
    job: str
    status: str


def next_step(schedule: Schedule, last: int, now: float, due: Due) -> Step:
    """The next decision about a schedule whose ticks are decided up to `last`."""
    tick = schedule.next(last)
    if tick is None or schedule.due(tick) > now:
        return Step(last)
    missed_until = int(now - LATE) - schedule.jitter
    if tick <= missed_until and due.held != str(tick):
        step = _missed(schedule, tick, last, missed_until, int(now) - schedule.window)
        if step is not None:
            return step
    if due.status not in wire.ALIVE or schedule.overlap == "allow":
        return Step(tick, "enqueued", tick, tick)
    if schedule.overlap == "skip":
        return _skip(tick, tick, f"job {due.job} is {due.status}")
    after = schedule.next(tick)
    if after is not None and schedule.due(after) <= now:
        return _skip(tick, tick, f"waited for job {due.job} until the next tick")
    return Step(last, held=tick)


def _missed(schedule: Schedule, tick: int, last: int, until: int, oldest: int) -> Step | None:
    """The step that skips missed ticks from `tick` up to `until`; None if the policy enqueues `tick`."""
    if schedule.misfire == "skip":
        return _skip(tick, previous(schedule, until, last), "missed")
    if tick < oldest:
        return _skip(tick, previous(schedule, min(oldest - 1, until), last), "missed, and too long ago")
    latest = previous(schedule, until, last)
    if schedule.misfire == "once" and latest is not None and latest > tick:
        return _skip(tick, previous(schedule, latest - 1, last), "missed, and a later one is enqueued")
    return None


def _skip(tick: int, to: int | None, why: str) -> Step:
    to = tick if to is None else to
    return Step(to, "skipped", tick, to, why)


def upcoming_after(schedule: Schedule, step: Step, now: float) -> float | None:
    """The Unix time at which the schedule is due again after `step`, or None if it has ended."""
    if step.held:
        return now + RECHECK_INTERVAL
    tick = schedule.next(step.last)
    # A late tick queues behind schedules that have been due for longer.
    return None if tick is None else max(schedule.due(tick), now if step.did else 0)
