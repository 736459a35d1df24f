"""Schedules by HTTP: list, read, pause, resume, and run now."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from packmule.dashboard.api.batches import Limited
from packmule.dashboard.api.endpoint import Call, Endpoint, endpoint
from packmule.dashboard.api.enqueueing import Enqueued
from packmule.dashboard.api.scopes import Scope
from packmule.jobs import schedule_ledger, schedule_store
from packmule.jobs.masking import masked_call
from packmule.jobs.schedule import InvalidSchedule
from packmule.jobs.schedule_info import ScheduleInfo, ScheduleTicks, schedule_info, with_ticks
from packmule.jobs.schedule_jobs import run_now
from packmule.jobs.schedule_store import StoredSchedule


@endpoint("GET", "/schedules", Scope.READ, answer=list[ScheduleInfo])
def schedules(call: Call) -> list[ScheduleInfo]:
    """List schedules with their next ticks."""
    found = schedule_store.entries(call.service.client)
    return [schedule_info(_shown(each, call)) for each in found]


@endpoint("GET", "/schedules/{name}", Scope.READ, query=Limited, answer=ScheduleTicks, may=(404,))
def read_schedule(call: Call) -> ScheduleTicks:
    """Read one schedule, and what became of its last ticks."""
    name = call.path["name"]
    entry = schedule_store.entry(call.service.client, name)
    return with_ticks(_shown(entry, call), schedule_ledger.read(call.service.client, name, call.query.limit))


@endpoint(
    "POST", "/schedules/{name}/pause", Scope.ACT, answer=ScheduleInfo, action="schedule pause",
    may=(404, 409),
)  # fmt: skip
def pause(call: Call) -> ScheduleInfo:
    """Pause a schedule, whatever later deploys say."""
    schedule_store.pause(call.service.client, call.path["name"])
    return _read(call)


@endpoint(
    "POST", "/schedules/{name}/resume", Scope.ACT, answer=ScheduleInfo, action="schedule resume", may=(404,)
)  # fmt: skip
def resume(call: Call) -> ScheduleInfo:
    """Resume a schedule from now on."""
    schedule_store.resume(call.service.client, call.path["name"])
    return _read(call)


@endpoint(
    "POST", "/schedules/{name}/run", Scope.ACT, answer=Enqueued, status=201, action="schedule run",
    may=(404, 409),
)  # fmt: skip
def run(call: Call) -> Enqueued:
    """Enqueue one job of a schedule now; its ticks stay as they are."""
    entry = schedule_store.entry(call.service.client, call.path["name"])
    if entry.schedule is None:
        raise InvalidSchedule(f"schedule {entry.name} can't be read: {entry.fault}")
    ids = run_now(entry.schedule, call.service.site.jobs)
    call.audited["job"] = str(ids[0])
    return Enqueued(str(ids[0]), bool(ids.held))


def _read(call: Call) -> ScheduleInfo:
    return schedule_info(_shown(schedule_store.entry(call.service.client, call.path["name"]), call))


def _shown(entry: StoredSchedule, call: Call) -> StoredSchedule:
    """The schedule without its arguments, unless the asker may see payloads."""
    found = entry.schedule
    if found is None:
        return entry
    sees = call.asker.may(Scope.PAYLOADS)
    if not sees:
        found = msgspec.structs.replace(found, args=(), kwargs={})
    elif not call.asker.key:
        args, kwargs = masked_call(found.job, found.args, found.kwargs)
        found = msgspec.structs.replace(found, args=tuple(args), kwargs=kwargs)
    return replace(entry, schedule=found)


ENDPOINTS: tuple[Endpoint, ...] = (schedules, read_schedule, pause, resume, run)
