"""Lookup: which callables a worker performs, and how payloads and results are read and written."""

from __future__ import annotations

import logging
from typing import Any, Protocol

import msgspec
from rq.job import Job
from rq.webhook import Webhook

from packmule.jobs import registry, wire
from packmule.jobs.job_type import JobType
from packmule.jobs.outgoing.door import Allowed, InvalidTarget, NotSent, Outgoing
from packmule.jobs.registry import Invoked

OURS = frozenset({"host", "content-length", "transfer-encoding", "connection"})
"""Headers that say how a request is sent, which is not the webhook's to say."""

REFUSED = 400
"""The first of HTTP's statuses that say that a request was not accepted."""

log = logging.getLogger("packmule.worker")


class Lookup(Protocol):
    """The one place where names from Redis become callables, and bytes become arguments."""

    def call(self, data: bytes, /) -> Invoked:
        """The call in the payload `data`. Raises if it is not valid, or not allowed."""

    def find(self, name: str, /) -> JobType:
        """The callable `name`. Raises if there is none, or if it is not allowed."""

    def encode(self, value: Any, /) -> bytes:
        """A result as it is stored. Raises `TypeError` or `ValueError` if it can't be."""

    def decode(self, data: bytes, /) -> Any:
        """The result that `encode` wrote. Raises if something else wrote it."""

    def send(self, webhook: Webhook, job: Job, reason: str | None) -> None:
        """Send a webhook about `job`, which failed for `reason` if there is one; log what prevents it."""


class Registered:
    """Registered functions only, called with JSON; webhooks to public hosts, and those that are `allowed`."""

    call = staticmethod(registry.call)
    find = staticmethod(registry.find)
    encode = staticmethod(wire.encode_value)

    def __init__(self, allowed: Allowed | None = None) -> None:
        self.allowed = allowed

    def decode(self, data: bytes) -> Any:
        """The result that `encode` wrote. Raises `DecodeError`."""
        return msgspec.json.decode(data)

    def send(self, webhook: Webhook, job: Job, reason: str | None) -> None:
        """Send it by our own outgoing requests, which reach no internal host."""
        body = b""
        headers = {name: value for name, value in (webhook.headers or {}).items() if name.lower() not in OURS}
        if webhook.method == "POST":
            body = wire.encode_json(webhook.get_payload(job, exc_string=reason))
            headers = {"Content-Type": "application/json", **headers}
        try:
            outgoing = Outgoing(webhook.url, self.allowed)
            try:
                status, _ = outgoing.send(webhook.method, body, headers)
            finally:
                outgoing.close()
        except (InvalidTarget, NotSent, ValueError) as error:
            log.warning("job %s: a webhook was not sent: %s", job.id, error)
        else:
            if status >= REFUSED:
                log.warning("job %s: a webhook was answered with %d", job.id, status)
