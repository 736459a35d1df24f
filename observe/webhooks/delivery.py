"""Webhooks: events of jobs are posted to URLs, each at least once, and no URL waits for another."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
from redis import Redis

from packmule.coordination.streams import dead_letters
from packmule.coordination.streams.consumer import Consumer
from packmule.coordination.streams.stream import Event
from packmule.jobs import wire
from packmule.observe import events
from packmule.observe.events import Wanted
from packmule.observe.webhooks.outgoing import Allowed, InvalidTarget, NotSent, Outgoing
from packmule.observe.webhooks.signature import sign
from packmule.observe.webhooks.webhook_file import Ready

DELIVERIES = 15
LONGEST_PAUSE = 300.0
"""Seconds between two deliveries of one event at most; all of them take over half an hour."""

WONT_TAKE = frozenset({400, 410, 413, 422})
"""Statuses by which a receiver says that it will never take this event."""

log = logging.getLogger("packmule.webhooks")


class Refused(RuntimeError):
    """A receiver answered that it has not taken an event."""


def group_of(name: str) -> str:
    """The consumer group of the webhook called `name`."""
    return f"webhook:{name}"


def run(
    connect: Callable[[], Redis], hooks: Sequence[Ready], allowed: Allowed, stop: threading.Event
) -> None:
    """Send events until `stop` is set. Any number of processes may: each event is sent by one of them.

    A webhook has a consumer group of its own, which begins with events from now on when it is first seen,
    and so many connections and members as its concurrency says.
    """
    threads = []
    for ready in hooks:
        for number in range(ready.hook.concurrency):
            member = f"{socket.gethostname()}-{os.getpid()}-{number}"
            sender = Sender(connect(), ready, allowed, member)
            threads.append(threading.Thread(target=sender.run, args=(stop,), name=ready.name))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class Sender:
    """The member `member` of the webhook's group, for one thread."""

    def __init__(self, client: Redis, ready: Ready, allowed: Allowed, member: str) -> None:
        self.client = client
        self.ready = ready
        self.group = group_of(ready.name)
        self.stream = events.stream(client)
        self.wanted = Wanted(types=ready.hook.types, queues=ready.hook.queues)
        self.outgoing = Outgoing(ready.hook.url, allowed)
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
        """Send an event, if it is one that is wanted. Raises `Refused`, `NotSent` or `InvalidTarget`."""
        parsed = events.parse(event)
        if parsed is None or parsed not in self.wanted:
            return
        status = self.post(event.id, parsed._asdict())
        if status in WONT_TAKE:
            reason = f"{self.ready.hook.url} answered {status}"
            log.error("webhook %s: %s is set aside: %s", self.ready.name, event.id, reason)
            record = dead_letters.event_record(
                event.id, event.value, reason=reason, deliveries=1, consumer=self.consumer.name
            )
            dead_letters.set_aside(self.client, self.stream.key, self.group, record)
        elif not _is_taken(status):
            raise Refused(f"{self.ready.hook.url} answered {status}")

    def post(self, id: str, fields: dict[str, Any]) -> int:
        """Send one event's fields as JSON, signed; the answer's status."""
        body = msgspec.json.encode(fields)
        headers = {"Content-Type": "application/json", "User-Agent": "packmule"}
        if self.ready.key is not None:
            headers |= sign(self.ready.key, id, int(time.time()), body)
        return self.outgoing.post(body, headers)[0]


def _is_taken(status: int) -> bool:
    return 200 <= status < 300  # noqa: PLR2004


def dead(client: Redis, name: str) -> Iterator[dict[str, Any]]:
    """What a webhook has given up, the newest first: `id`, `reason`, `at`, `deliveries` and `events`."""
    for record in client.lrange(
        dead_letters.dead_letters_key(events.stream(client).key, group_of(name)), 0, -1
    ):
        yield _decoded(record)


def _decoded(record: bytes | str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(record, type=dict[str, Any])
    except msgspec.DecodeError as error:
        return {"id": "", "deliveries": 0, "reason": f"a record that is none: {error}", "events": []}


def resend(client: Redis, ready: Ready, allowed: Allowed) -> tuple[int, int]:
    """Send what was given up once more, the oldest first; how many were taken, and how many are left.

    It ends at the first that isn't taken.
    """
    sender = Sender(client, ready, allowed, "resend")
    key = dead_letters.dead_letters_key(sender.stream.key, sender.group)
    sent = 0
    try:
        while records := client.lrange(key, -1, -1):
            found = _decoded(records[0])
            for value in found["events"]:
                if (parsed := events.parse(Event(found["id"], value))) is not None:
                    status = sender.post(parsed.id, parsed._asdict())
                    if not _is_taken(status):
                        return sent, int(client.llen(key))
            client.lrem(key, -1, wire.text(records[0]))
            sent += 1
    except (NotSent, InvalidTarget):
        pass
    finally:
        sender.outgoing.close()
    return sent, int(client.llen(key))
