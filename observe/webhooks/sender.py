"""Sender: post events of jobs to webhooks, each at least once; no webhook waits for another."""

from __future__ import annotations

import logging
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import msgspec
from redis import Redis

from packmule.coordination.redis.replies import UNREADABLE
from packmule.coordination.streams import dead_letters
from packmule.coordination.streams.consumer import Consumer
from packmule.coordination.streams.stream import Event
from packmule.errors import Error
from packmule.jobs.outgoing.door import Allowed, InvalidTarget, NotSent, Outgoing, shown
from packmule.observe import events
from packmule.observe.events import EventFilter, JobEvent
from packmule.observe.webhooks import state
from packmule.observe.webhooks.endpoints import Endpoint, group_of
from packmule.observe.webhooks.signature import sign

DELIVERIES = 15
LONGEST_PAUSE = 300.0
"""The most seconds between two deliveries of one event; all deliveries take more than half an hour."""

PERMANENT = frozenset({400, 410, 413, 422})
"""Statuses that say that the receiver will never accept this event."""

log = logging.getLogger("packmule.webhooks")


class NotAccepted(Error, RuntimeError):
    """A receiver answered, but did not accept an event."""


def run(
    connect: Callable[[], Redis], endpoints: Sequence[Endpoint], allowed: Allowed, stop: threading.Event
) -> None:
    """Send events until `stop` is set. Any number of processes may run: one of them sends each event.

    Each webhook has its own consumer group, and in each process as many members as its `concurrency`, each
    with a connection. A new group starts with events from now on.
    """
    threads = []
    for endpoint in endpoints:
        for number in range(endpoint.hook.concurrency):
            member = f"{socket.gethostname()}-{os.getpid()}-{number}"
            sender = Sender(connect(), endpoint, allowed, member)
            threads.append(threading.Thread(target=sender.run, args=(stop,), name=endpoint.name))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class Sender:
    """The member called `member` of a webhook's group, for one thread."""

    def __init__(self, client: Redis, endpoint: Endpoint, allowed: Allowed, member: str) -> None:
        self.client = client
        self.endpoint = endpoint
        self.group = group_of(endpoint.name)
        self.stream = events.stream(client)
        self.only = EventFilter(types=endpoint.hook.types, queues=endpoint.hook.queues)
        self.outgoing = Outgoing(endpoint.hook.url, allowed)
        self.consumer = Consumer(
            self.stream,
            self.group,
            member,
            since="$",
            deliveries=DELIVERIES,
            longest_pause=LONGEST_PAUSE,
        )

    def run(self, stop: threading.Event) -> None:
        """Send until `stop` is set."""
        try:
            self.consumer.run(self.handle, stop)
        finally:
            self.outgoing.close()

    def handle(self, event: Event) -> None:
        """Send an event if the webhook wants it. Raises `NotAccepted`, `NotSent` or `InvalidTarget`."""
        parsed = events.parse(event)
        if parsed is None or parsed not in self.only:
            return
        status = self.attempt(parsed)
        if status in PERMANENT:
            reason = f"{shown(self.endpoint.hook.url)} answered {status}"
            log.error("webhook %s: %s is set aside: %s", self.endpoint.name, event.id, reason)
            record = dead_letters.event_record(
                event.id, event.value, reason=reason, deliveries=1, consumer=self.consumer.name
            )
            dead_letters.set_aside(self.client, self.stream.key, self.group, record)
        elif not _is_accepted(status):
            raise NotAccepted(f"{shown(self.endpoint.hook.url)} answered {status}")

    def attempt(self, event: JobEvent) -> int:
        """Send an event and count how that went; return the answer's status."""
        status = 0
        try:
            status = self.post(event.id, event._asdict())
        finally:
            state.count(self.client, self.endpoint.name, accepted=_is_accepted(status))
        return status

    def post(self, id: str, fields: dict[str, Any]) -> int:
        """Send one event's fields as signed JSON; return the answer's status."""
        body = msgspec.json.encode(fields)
        headers = {"Content-Type": "application/json", "User-Agent": "packmule"}
        if self.endpoint.key is not None:
            headers |= sign(self.endpoint.key, id, int(time.time()), body)
        return self.outgoing.post(body, headers)[0]


def _is_accepted(status: int) -> bool:
    return 200 <= status < 300  # noqa: PLR2004


def dead(client: Redis, name: str) -> Iterator[dict[str, Any]]:
    """The dead letters of a webhook, the newest first: `id`, `reason`, `at`, `deliveries` and `events`."""
    for record in client.lrange(
        dead_letters.dead_letters_key(events.stream(client).key, group_of(name)), 0, -1
    ):
        yield _decoded(record)


def _decoded(record: bytes | str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(record, type=dict[str, Any])
    except UNREADABLE as error:
        return {"id": "", "deliveries": 0, "reason": f"the record is corrupt: {error}", "events": []}


def resend(
    client: Redis,
    endpoint: Endpoint,
    allowed: Allowed,
    most: int = dead_letters.MOST,
    seconds: float = math.inf,
) -> tuple[int, int]:
    """Send a webhook's dead letters again, the oldest first, until one is not accepted.

    At most so many, none begun after so many seconds. Returns how many were sent, and how many are left.
    """
    sender = Sender(client, endpoint, allowed, "resend")
    key = dead_letters.dead_letters_key(sender.stream.key, sender.group)
    sent, last = 0, time.monotonic() + seconds
    try:
        while sent < most and time.monotonic() < last and (records := client.lrange(key, -1, -1)):
            for event in state.dead_letter(records[0]).events:
                if not _is_accepted(sender.attempt(event)):
                    return sent, int(client.llen(key))
            client.lrem(key, -1, cast("str", records[0]))  # its bytes, whatever they are
            sent += 1
    except (NotSent, InvalidTarget):
        pass
    finally:
        sender.outgoing.close()
    return sent, int(client.llen(key))
