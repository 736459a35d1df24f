"""What else the settings name: whether lock nodes, storage and mail server can be used; a fault is raised."""

from __future__ import annotations

import contextlib
import socket
from importlib.util import find_spec

from redis import Redis

from packmule.config import Settings
from packmule.coordination.locks.redlock import NoQuorum, Redlock
from packmule.coordination.redis.connection import lock_clients
from packmule.jobs import sealing
from packmule.jobs.cluster import workers
from packmule.jobs.email.delivery.pace import parse
from packmule.jobs.email.delivery.staging import checked
from packmule.jobs.email.delivery.ways import way_of
from packmule.jobs.email.dkim.keys import GOOD_BITS, read_key
from packmule.jobs.email.message.verp import checked_path
from packmule.jobs.email.suppression.intake import check as check_mailbox
from packmule.jobs.files.scanning.clamd import Clamd
from packmule.jobs.storage import Storage

PROBE = ".packmule-check"
FEW_HOSTS = 3
LOCK_NODE_TIMEOUT = 2.0
CLAMD_SECONDS = 10.0


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
        if not files.needs_network:
            raise _Abandoned  # so that no file is left there
    if files.needs_network:  # a store gets the file at the end alone
        files.delete(PROBE)
    return f"ok, {files.locate(PROBE).removesuffix(PROBE)}"


def hosts(settings: Settings, client: Redis) -> str:
    """Whether workers on other hosts can see the storage, as far as that is known."""
    others = sorted({each["host"] for each in workers(client)} - {socket.gethostname(), ""})
    if not others:
        return "ok, no workers on other hosts"
    named = ", ".join(others[:FEW_HOSTS]) + (", ..." if len(others) > FEW_HOSTS else "")
    if Storage(settings.storage_url).needs_network:
        return f"ok, workers run on {named}, too"
    return (
        f"ok, but workers run on {named}, too: they and this host must share the folder of PACKMULE_STORAGE, "
        "or use an object store"
    )


def isolation(settings: Settings) -> str:
    """Whether jobs that read what strangers sent have a network."""
    if Storage(settings.storage_url).needs_network:
        return "ok, jobs that read strangers' files keep the network, which they reach the storage by"
    if sealing.is_possible():
        return "ok, jobs that read strangers' files have no network here"
    return "ok, but jobs that read strangers' files have a network: the kernel denies them namespaces"


def clamd(settings: Settings) -> str:
    """What scans files, if it finds what it must find."""
    return f"ok, {Clamd(settings.clamd or '', answer_seconds=CLAMD_SECONDS).prove()}"


def mail(settings: Settings) -> str:
    """Whether the mail server takes mails, or what happens to them without one."""
    parse(settings.mail_pace)
    if settings.mail_to:
        checked(settings.mail_to)
    if settings.mail_return_path:
        checked_path(settings.mail_return_path)
    if not settings.mail_urls:
        if settings.environment == "development" and find_spec("aiosmtpd"):
            return "ok, mails are saved instead of sent (PACKMULE_MAIL_URL is not set)"
        return "PACKMULE_MAIL_URL is not set: e-mail jobs will fail"
    for url in settings.mail_urls:
        way_of(url).open().close()
    return "ok"


def dkim(settings: Settings) -> str:
    """Whether the keys that sign mails can be used, and whose mails they sign."""
    keys = [read_key(each) for each in settings.dkim]
    weak = [key.name for key in keys if not key.is_strong]
    more = f"; give {', '.join(weak)} a key of {GOOD_BITS} bits" if weak else ""
    return f"ok, signs by {', '.join(key.name for key in keys)}{more}"


def bounces(settings: Settings) -> str:
    """Whether the mailboxes of bounces can be read."""
    for mailbox in settings.bounces:
        check_mailbox(mailbox)
    return "ok"
