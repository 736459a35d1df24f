"""`packmule check`: each setting, and whether what the settings name can be reached."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from packmule.config import VARIABLES, Settings, SettingsError, misspelt, secret
from packmule.errors import Unavailable
from packmule.terminal.app import App
from packmule.terminal.parameters import json_option

if TYPE_CHECKING:
    from redis import Redis

    from packmule.jobs.storage import Storage

PROBE = ".packmule-check"
LOCK_NODE_TIMEOUT = 2.0
ROUND_TRIPS = 5


class _Abandoned(Exception):
    """Leaves the storage without a file once it has proved writable."""


@dataclass(frozen=True)
class Finding:
    """Whether a part is `ok`, and the text for a person."""

    ok: bool
    text: str


@click.command()
@json_option
@click.pass_obj
def check(app: App, json: bool) -> int:
    """Check the settings and whether servers are reachable.

    Redis, the lock nodes, the storage and the mail server are asked. Exit with 3 if Redis can't be reached,
    and with 1 for other faults.
    """
    from packmule.terminal import show

    settings = app.settings
    findings = {
        "variables": _finding(_variables),
        "modules": _finding(lambda: _modules(app)),
        "schedules": _finding(lambda: _schedules(app)),
        "webhooks": _finding(lambda: _webhooks(settings)),
        "redis": _finding(lambda: _server(app.client, settings.memory_high_water)),
        "durability": _finding(lambda: _durability(app.client)),
        "locks": _finding(lambda: _locks(settings)),
        "storage": _finding(lambda: _storage(app.storage)),
        "mail": _finding(lambda: _mail(settings)),
    }
    if json:
        show.as_json({"settings": settings.masked(), "findings": findings})
    else:
        shown = settings.masked()
        show.table(("setting", "value"), [(VARIABLES[name][0], shown[name] or "-") for name in VARIABLES], "")
        show.out.print()
        states = [(name, finding.text) for name, finding in findings.items()]
        show.table(("part", "state"), states, "", show.NARROW)
    if not findings["redis"].ok:
        return Unavailable.exit_code
    return 0 if all(finding.ok for finding in findings.values()) else 1


def _finding(probe: Callable[[], Any]) -> Finding:
    try:
        return Finding(True, str(probe() or "ok"))
    except Exception as error:
        return Finding(False, f"FAULT: {error}")


def _variables() -> None:
    found = [f"{name} is no setting: did you mean {near}?" for name, near in misspelt().items()]
    if found:
        raise SettingsError("; ".join(found))


def _modules(app: App) -> str:
    """Load the jobs, and look up the queues that those of the user's modules name."""
    from packmule.jobs import registry
    from packmule.jobs.client import UnknownQueue, known_queue

    app.load_jobs()
    for each in registry.types():
        if each.options.queue and each.name.rpartition(".")[0] in app.settings.modules:
            try:
                known_queue(each.options.queue, app.settings.queues)
            except UnknownQueue as error:
                raise UnknownQueue(f"{each.name}: {error}") from None
    return "ok"


def _schedules(app: App) -> str:
    """How many schedules the modules and the file have, or their faults."""
    from redis import Redis

    from packmule.jobs import registry
    from packmule.jobs.schedule import InvalidSchedule, declared
    from packmule.jobs.schedule_jobs import faults_of
    from packmule.scheduler.schedules.schedule_file import read_file

    found = [each for each in map(declared, registry.types()) if each is not None]
    if app.settings.schedules is not None:
        found += read_file(app.settings.schedules)
    faults = faults_of(found, app.jobs_on(Redis()), time.time())  # it validates calls, and never connects
    if faults:
        raise InvalidSchedule("; ".join(faults))
    return f"ok, {len(found)}"


def _webhooks(settings: Settings) -> str:
    from packmule.observe.webhooks import endpoints
    from packmule.observe.webhooks.outgoing import Allowed

    if settings.webhooks is None:
        return "ok, none"
    hooks = endpoints.read_endpoints(settings.webhooks, Allowed(settings.webhook_allow), secret)
    return f"ok, {len(hooks)}"


def _server(client: Redis, high_water: str) -> str:
    from packmule.coordination.redis import compact
    from packmule.jobs import cluster
    from packmule.scheduler.maintenance.memory_limit import MemoryLimit

    found = cluster.server(client)
    limit = MemoryLimit(client, high_water)
    fault = limit.fault(limit.usage()[1])
    text = f"ok, {found['server']} {found['version']}, a round trip takes {_round_trip(client):.1f} ms"
    if advice := compact.advice(client):
        text += f"; jobs would take less memory after {' and '.join(advice)}"
    return text + (f"; {fault}" if fault else "")


def _round_trip(client: Redis) -> float:
    """Milliseconds that an answer takes."""
    spans = []
    for _ in range(ROUND_TRIPS):
        began = time.monotonic()
        client.ping()
        spans.append(time.monotonic() - began)
    return min(spans) * 1000


def _durability(client: Redis) -> str:
    """What the server at hand promises of acknowledged jobs."""
    from packmule.coordination.redis.durability import durability

    return f"ok, {durability(client).promise}"


def _locks(settings: Settings) -> str:
    from packmule.coordination.locks.redlock import NoQuorum, Redlock
    from packmule.coordination.redis.connection import lock_clients

    clients = lock_clients(settings.lock_urls, settings.redis_url, settings.data_dir)
    redlock = Redlock(clients, timeout=LOCK_NODE_TIMEOUT)
    try:
        faults = redlock.faults()
    finally:
        redlock.close()
    said = "; ".join(f"{node}: {fault}" for node, fault in faults.items())
    if len(clients) - len(faults) <= len(clients) // 2:
        raise NoQuorum(f"no majority of the lock nodes can vote: {said}")
    if not settings.lock_urls:
        return "ok, the job server is the only lock node"
    return f"ok, {len(clients) - len(faults)} of {len(clients)} lock nodes can vote" + (said and f"; {said}")


def _storage(storage: Storage) -> str:
    with contextlib.suppress(_Abandoned), storage.write(PROBE) as probe:
        probe.write_bytes(b"can be written")
        raise _Abandoned  # so that no file is left there
    return f"ok, {storage.locate(PROBE).removesuffix(PROBE)}"


def _mail(settings: Settings) -> str:
    from packmule.jobs.email.delivery.smtp.server import Server

    if not settings.mail_urls:
        if settings.environment == "development":
            return "ok, mails are saved instead of sent (PACKMULE_MAIL_URL is not set)"
        return "PACKMULE_MAIL_URL is not set: e-mail jobs will fail"
    Server(settings.mail_urls[0]).connect().quit()
    return "ok"
