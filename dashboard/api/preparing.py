"""Prepared calls in the bodies of requests, callbacks and nodes: what is wrong is said where they stand."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from packmule.dashboard.api.endpoint import Call
from packmule.dashboard.api.enqueueing import NewJob, asked_for, refused
from packmule.dashboard.api.problems import Fault, Refused
from packmule.errors import Error
from packmule.jobs import entry
from packmule.jobs.job import Prepared
from packmule.jobs.job_type import JobType

CALLBACKS = ("on_complete", "on_success")
"""The fields of a body that are called back when a batch or flow has ended."""


async def prepared(call: Call, asked: NewJob | None, place: str) -> Prepared | None:
    """The call that stands at the pointer `place` in the body, None for none. Raises `Refused`."""
    if asked is None:
        return None
    try:
        job, options = await asked_for(call, asked.job, asked.options)
    except Refused as refusal:
        raise moved(refusal, place) from None
    try:
        job.validate(asked.args, asked.kwargs)
    except Error as error:
        raise at(error, place, job, (asked.args, asked.kwargs)) from None
    return Prepared(job, (asked.args, asked.kwargs), options)


def of_callback(error: Error, callbacks: Mapping[str, Prepared | None]) -> Exception:
    """The problem that an error is, if it names the job of a callback; else the error."""
    place = next((name for name, each in callbacks.items() if each and each.job.name in str(error)), None)
    if place is None:
        return error
    return Refused(422, type(error).__name__, str(error), Fault(str(error), f"#/{place}"))


def at(error: Error, place: str, job: JobType, call: entry.Call) -> Exception:
    """The problem that an error of a call is, which stands at the pointer `place`."""
    found = refused(error, job, [call], is_many=False)
    if isinstance(found, Refused):
        return moved(found, place)
    return Refused(422, type(error).__name__, str(error), Fault(str(error), f"#{place}"))


def moved(refusal: Refused, place: str) -> Refused:
    """A problem of a call as one of a body in which the call stands at `place`."""
    faults = [
        msgspec.structs.replace(each, pointer=f"#{place}{(each.pointer or '#')[1:]}")
        for each in refusal.problem.errors
    ]
    kind = refusal.problem.type.rpartition(":")[2]
    return Refused(422, kind, refusal.problem.detail, *faults)
