"""Tick policy: decide without Redis what happens to a tick; the periodic enqueuer writes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from packmule.scheduler.schedules.cron import previous
from packmule.scheduler.schedules.schedule import Schedule

ALIVE = frozenset({"queued", "started", "scheduled", "deferred"})

LATE = 15.0
"""Seconds after which a tick counts as missed: well above a change of leaders."""

LOOK_AGAIN = 0.5
"""Seconds between two looks whether the job has ended for which a tick waits."""


class Step(NamedTuple):
    """What is decided of one schedule in one step.

    With `did` of "enqueued" `tick` is, with "skipped" those from `tick` up to `to` are left out. All is
    decided up to `last` then; `held` is a tick that waits.
    """

    last: int
    did: str = ""
    tick: int = 0
    to: int = 0
    why: str = ""
    held: int = 0


@dataclass
class Due:
    """A schedule that is due, as it was read: the tick that it `held`, its last `job` and that's status."""

    name: str
    record: bytes
    last: str
    held: str
    job: str
    status: str


def next_step(schedule: Schedule, last: int, now: float, due: Due) -> Step:
    """What is next of a schedule that is decided up to `last`. No Redis."""
    tick = schedule.next(last)
    if tick is None or schedule.due(tick) > now:
        return Step(last)
    missed_until = int(now - LATE) - schedule.jitter
    if tick <= missed_until and due.held != str(tick):
        step = _missed(schedule, tick, last, missed_until, int(now) - schedule.window)
        if step is not None:
            return step
    if due.status not in ALIVE or schedule.overlap == "allow":
        return Step(tick, "enqueued", tick, tick)
    if schedule.overlap == "skip":
        return _skip(tick, tick, f"job {due.job} is {due.status}")
    after = schedule.next(tick)
    if after is not None and schedule.due(after) <= now:
        return _skip(tick, tick, f"waited for job {due.job} until the next tick")
    return Step(last, held=tick)


def _missed(schedule: Schedule, tick: int, last: int, until: int, oldest: int) -> Step | None:
    """What the misfire policy skips, beginning with `tick`, of the ticks `until` then; None to enqueue it."""
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
    """When the schedule is to be looked at after `step`."""
    if step.held:
        return now + LOOK_AGAIN
    tick = schedule.next(step.last)
    # What is late still goes behind what others have been waiting for.
    return None if tick is None else max(schedule.due(tick), now if step.did else 0)
