"""`packmule check`: each setting as it is, and whether what the settings name can be reached."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from packmule.config import VARIABLES, Settings, secret
from packmule.errors import Unavailable
from packmule.terminal.app import App

if TYPE_CHECKING:
    from redis import Redis

    from packmule.jobs.storage import Storage

PROBE = ".packmule-check"
LOCK_NODE_TIMEOUT = 2.0


class _Abandoned(Exception):
    """The storage could be written, which is all that was to be known."""


@dataclass(frozen=True)
class Finding:
    """Whether a part is `ok`, and what is to be said of it."""

    ok: bool
    text: str


@click.command()
@click.option("--json", "json", is_flag=True)
@click.pass_obj
def check(app: App, json: bool) -> int:
    """Check the settings, and that Redis, storage and mail server can be reached.

    Exit 3 without Redis, 1 for other faults.
    """
    from packmule.terminal import show

    settings = app.settings
    findings = {
        "modules": _finding(app.load_jobs),
        "schedules": _finding(lambda: _schedules(settings)),
        "webhooks": _finding(lambda: _webhooks(settings)),
        "redis": _finding(lambda: _server(app.client, settings.memory_high_water)),
        "locks": _finding(lambda: _locks(settings)),
        "storage": _finding(lambda: _storage(app.storage)),
        "mail": _finding(lambda: _mail(settings)),
    }
    if json:
        show.as_json({"settings": settings.masked(), "findings": findings})
    else:
        shown = settings.masked()
        show.table(("setting", "value"), [(VARIABLES[name][0], shown[name]) for name in VARIABLES], "")
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


def _schedules(settings: Settings) -> str:
    """Those of the modules and of the file, and what would keep them from working."""
    from redis import Redis

    from packmule.jobs import registry
    from packmule.jobs.client import Client
    from packmule.scheduler.schedules.periodic_enqueuer import faults_of
    from packmule.scheduler.schedules.schedule import InvalidSchedule, from_code
    from packmule.scheduler.schedules.schedule_file import read_file

    found, faults = from_code(registry.names())
    if settings.schedules is not None:
        found += read_file(settings.schedules)
    producer = Client(Redis(), settings.queues, settings.max_job_bytes)  # only asked, so never connected
    faults += faults_of(found, producer, time.time())
    if faults:
        raise InvalidSchedule("; ".join(faults))
    return f"ok, {len(found)}"


def _webhooks(settings: Settings) -> str:
    from packmule.observe.webhooks import webhook_file
    from packmule.observe.webhooks.outgoing import Allowed

    if settings.webhooks is None:
        return "ok, none"
    hooks = webhook_file.read_file(settings.webhooks, Allowed(settings.webhook_allow), secret)
    return f"ok, {len(hooks)}"


def _server(client: Redis, high_water: str) -> str:
    from packmule.jobs import reader
    from packmule.scheduler.maintenance.memory_limit import MemoryLimit

    found = reader.server(client)
    limit = MemoryLimit(client, high_water)
    fault = limit.fault(limit.usage()[1])
    return f"ok, {found['server']} {found['version']}" + (f"; {fault}" if fault else "")


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
        raise NoQuorum(f"no majority of the lock nodes has a vote: {said}")
    if not settings.lock_urls:
        return "ok, a single-node lock: the job server alone"
    return f"ok, {len(clients) - len(faults)} of {len(clients)} nodes have a vote" + (said and f"; {said}")


def _storage(storage: Storage) -> str:
    with contextlib.suppress(_Abandoned), storage.write(PROBE) as probe:
        probe.write_bytes(b"can be written")
        raise _Abandoned  # so that nothing is left there
    return f"ok, {storage.locate(PROBE).removesuffix(PROBE)}"


def _mail(settings: Settings) -> str:
    from packmule.jobs.email.server import Server

    if settings.smtp_url is None:
        if settings.environment == "development":
            return "ok, mails are caught and filed (no PACKMULE_SMTP_URL)"
        return "not set: e-mail jobs will fail until PACKMULE_SMTP_URL is"
    Server(settings.smtp_url).connect().quit()
    return "ok"
