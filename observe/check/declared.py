"""What the settings declare: whether modules, schedules and webhooks make sense; a fault is raised."""

from __future__ import annotations

import time

from redis import Redis

from packmule.config import Settings, SettingsError, secret
from packmule.jobs import registry
from packmule.jobs.client import Client, UnknownQueue, known_queue
from packmule.jobs.outgoing.door import Allowed
from packmule.jobs.schedule import InvalidSchedule, declared
from packmule.jobs.schedule_file import read_file
from packmule.jobs.schedule_jobs import faults_of
from packmule.observe.check.variables import unknown
from packmule.observe.webhooks.endpoints import read_endpoints


def variables() -> str:
    """Which variables look like a setting and are none; it is a fault if one resembles a setting."""
    found = unknown()
    faults = [f"{name} is no setting: did you mean {near}?" for name, near in found.items() if near]
    others = ", ".join(name for name, near in found.items() if not near)
    if others:
        others = f"no setting of Packmule: {others}"
    if faults:
        raise SettingsError("; ".join([*faults, others] if others else faults))
    return f"ok, but {others}" if others else "ok"


def queues_of_modules(settings: Settings) -> str:
    """Whether the loaded jobs of the user's modules name queues that there are."""
    for each in registry.types():
        if each.options.queue and each.name.rpartition(".")[0] in settings.modules:
            try:
                known_queue(each.options.queue, settings.queues)
            except UnknownQueue as error:
                raise UnknownQueue(f"{each.name}: {error}") from None
    return "ok"


def schedules(settings: Settings) -> str:
    """How many schedules the modules and the file have, or their faults."""
    found = [each for each in map(declared, registry.types()) if each is not None]
    if settings.schedules is not None:
        found += read_file(settings.schedules)
    jobs = Client(Redis(), settings.queues, settings.max_job_bytes)  # it validates calls, and never connects
    faults = faults_of(found, jobs, time.time())
    if faults:
        raise InvalidSchedule("; ".join(faults))
    return f"ok, {len(found)}"


def presets(settings: Settings) -> str:
    """How many presets of images the file has."""
    if settings.presets is None:
        return "ok, the shipped ones"
    from packmule.jobs.image.presets import SHIPPED, Presets  # noqa: PLC0415  it loads the image library

    return f"ok, {len(set(Presets(settings.presets).names) - set(SHIPPED))} beside the shipped ones"


def pipelines(settings: Settings) -> str:
    """How many pipelines of files there are, or the fault of one."""
    from packmule.jobs.pipelines.pipeline_file import check, known  # noqa: PLC0415  it loads their jobs

    found = known(settings.pipelines, settings.modules)
    check(found, Client(Redis(), settings.queues, settings.max_job_bytes))
    return f"ok, {len(found)}"


def webhooks(settings: Settings) -> str:
    """How many webhooks the file has."""
    if settings.webhooks is None:
        return "ok, none"
    return f"ok, {len(read_endpoints(settings.webhooks, Allowed(settings.webhook_allow), secret))}"
