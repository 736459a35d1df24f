"""The jobs of a schedule: check that they can be enqueued, and enqueue one by hand."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from packmule.jobs import registry, schedule_ledger
from packmule.jobs.client import Client, UnknownQueue
from packmule.jobs.handle import JobHandles
from packmule.jobs.job_type import InvalidCall
from packmule.jobs.options import InvalidOption, Options
from packmule.jobs.schedule import InvalidSchedule, Schedule


def check(schedule: Schedule, client: Client, now: float) -> int:
    """Check that a schedule's jobs can be enqueued; return its first tick after `now`.

    Raises `InvalidSchedule` if it has no tick, and whatever an enqueue raises.
    """
    tick = schedule.next(int(now))
    if tick is None:
        raise InvalidSchedule(f"schedule {schedule.name}: {schedule.timing} has no more ticks")
    options = Options(job_id=schedule.job_id(tick), queue=schedule.queue)
    client.written(registry.find(schedule.job), schedule.call(tick), options)
    return tick


def faults_of(schedules: Sequence[Schedule], client: Client, now: float) -> list[str]:
    """A line for each schedule whose jobs could not be enqueued."""
    faults = []
    for schedule in schedules:
        try:
            check(schedule, client, now)
        except (InvalidSchedule, InvalidCall, InvalidOption, UnknownQueue, registry.NotRegistered) as error:
            fault, name = str(error), f"schedule {schedule.name}"
            faults.append(fault if name in fault else f"{name}: {fault}")
    return faults


def run_now(schedule: Schedule, client: Client) -> JobHandles:
    """Enqueue one job of a schedule by hand, in addition to its ticks, and record it in the ledger."""
    now = int(client.redis.time()[0])
    id = f"cron-{schedule.name}-run-{secrets.token_hex(8)}"
    options = Options(job_id=id, queue=schedule.queue)
    ids = client.send(registry.find(schedule.job), [schedule.call(now)], options)
    did = "skipped" if ids.held else "enqueued"
    entry = {"tick": now, "did": did, "why": "by hand", "job": str(ids[0]), "at": now}
    schedule_ledger.append(client.redis, schedule.name, entry)
    return ids
