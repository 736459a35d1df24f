"""What a job's page shows of its past: its attempts, the other events, and its steps."""

from __future__ import annotations

from typing import Any, NamedTuple

from redis import Redis

from packmule.dashboard.rights import HIDDEN
from packmule.dashboard.viewer import Viewer
from packmule.jobs import masking, wire
from packmule.jobs.reader import JobInfo
from packmule.observe import timeline
from packmule.observe.events import JobEvent
from packmule.observe.steps import StepInfo, steps_of
from packmule.observe.timeline import Attempt

STEP_STATES = {"begun": "outcome unknown", "late": "no signal came", "waits": "waits", "done": "done"}

MOST_STEPS = 200

_OF_ATTEMPTS = ("finished", "failed", "stopped", "retried", "progress")
"""Events that the attempts tell better, or that are too many."""


SHAPES = {
    **dict.fromkeys(("enqueued", "promoted", "returned", "signaled"), "queued"),
    "waiting": "scheduled",
    "retried": "failed",
    "rescued": "failed",
    "quarantined": "failed",
    "error_new": "failed",
    "error_again": "failed",
}
"""Events by the statuses whose shapes they have."""


class Moment(NamedTuple):
    """A line of the timeline: an attempt that ended, or an event."""

    at: float | None
    what: str
    shape: str
    worker: str
    seconds: float | None
    text: str
    attempt: int | None = None


class Step(NamedTuple):
    """A step of a job; `value` is its result, which only some viewers get."""

    kind: str
    name: str
    state: str
    at: float | None
    value: Any
    has_value: bool


def past(client: Redis, info: JobInfo, viewer: Viewer) -> dict[str, Any]:
    """The values `moments`, the earliest first, and `steps` with `more_steps`."""
    found, steps = timeline.read(client, info), steps_of(client, info.id)
    first = max(1, info.attempts + info.has_ended - len(found.attempts) + 1)
    moments = [_attempt(each, number, viewer) for number, each in enumerate(found.attempts, first)]
    moments += [_event(each, viewer) for each in found.events if each.type not in _OF_ATTEMPTS]
    return {
        "moments": sorted(moments, key=lambda each: each.at or 0.0),
        "steps": [_step(each, viewer) for each in steps[:MOST_STEPS]],
        "more_steps": max(0, len(steps) - MOST_STEPS),
    }


def _attempt(attempt: Attempt, number: int, viewer: Viewer) -> Moment:
    reason = attempt.reason or ""
    if not viewer.may_see_payloads and reason:
        reason = wire.error_type(reason)
    return Moment(
        attempt.ended,
        attempt.outcome,
        _shape(attempt.outcome),
        attempt.worker,
        attempt.seconds,
        reason,
        number,
    )


def _event(event: JobEvent, viewer: Viewer) -> Moment:
    said = event.details
    # Why a record can't be read may quote what is in it.
    is_hidden = event.type == "quarantined" and not viewer.may_see_payloads
    reason = HIDDEN if is_hidden else said.get("reason")
    signal = f"signal {said['signal']}" if said.get("signal") else ""
    what = event.type.replace("_", " ")
    return Moment(event.at, what, _shape(event.type), event.worker, None, str(reason or signal))


def _shape(what: str) -> str:
    return SHAPES.get(what, what)


def _step(step: StepInfo, viewer: Viewer) -> Step:
    has_value = step.state == "done" and step.kind != "sleep"
    value = masking.masked(step.value) if has_value and viewer.may_see_payloads else None
    return Step(step.kind, step.name, STEP_STATES.get(step.state, step.state), step.at, value, has_value)
