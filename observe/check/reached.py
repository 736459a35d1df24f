"""What else the settings name: whether lock nodes, storage and mail server can be used; a fault is raised."""

from __future__ import annotations

import contextlib

from packmule.config import Settings
from packmule.coordination.locks.redlock import NoQuorum, Redlock
from packmule.coordination.redis.connection import lock_clients
from packmule.jobs.email.delivery.pace import parse
from packmule.jobs.email.delivery.staging import checked
from packmule.jobs.email.delivery.ways import way_of
from packmule.jobs.storage import Storage

PROBE = ".packmule-check"
LOCK_NODE_TIMEOUT = 2.0


class _Abandoned(Exception):
    """Leaves the storage without a file once it has proved writable."""


def locks(settings: Settings) -> str:
    """How many lock nodes can vote."""
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


def storage(settings: Settings) -> str:
    """Where files are, if a file can be written there."""
    files = Storage(settings.storage_url)
    with contextlib.suppress(_Abandoned), files.write(PROBE) as probe:
        probe.write_bytes(b"can be written")
        raise _Abandoned  # so that no file is left there
    return f"ok, {files.locate(PROBE).removesuffix(PROBE)}"


def mail(settings: Settings) -> str:
    """Whether the mail server takes mails, or what happens to them without one."""
    parse(settings.mail_pace)
    if settings.mail_to:
        checked(settings.mail_to)
    if not settings.mail_urls:
        if settings.environment == "development":
            return "ok, mails are saved instead of sent (PACKMULE_MAIL_URL is not set)"
        return "PACKMULE_MAIL_URL is not set: e-mail jobs will fail"
    for url in settings.mail_urls:
        way_of(url).open().close()
    return "ok"
