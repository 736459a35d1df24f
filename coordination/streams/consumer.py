"""A member of a consumer group: every event of a stream is handled by one of the group, at least once."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from packmule.coordination.redis.backoff import REDIS_ERRORS, BackOff, is_transient
from packmule.coordination.redis.scripts import Script
from packmule.coordination.streams.dead_letters import (
    dead_letters_key,
    entry_record,
    event_record,
    rest_key,
    set_aside,
)
from packmule.coordination.streams.stream import (
    FIELD,
    LONGEST_BLOCK,
    Event,
    Stream,
    block_ms,
    index_of,
    parse,
    text,
    unpack,
)
from packmule.units import DAY

ACK_WITHIN = 0.02
"""Seconds that the acknowledgement of a handled entry may wait for others, if no handler keeps it waiting."""

MOST_LATER = 1000
"""Entries put off by `Later` at which a consumer takes no new ones."""

REST_TTL = 7 * DAY
_REWIND = 3

_take_over = Script("coordination.streams", "take_over")

log = logging.getLogger("packmule.stream")


class Later(Exception):
    """Raised by a handler: deliver this event and the rest of its entry again in `seconds`, uncounted."""

    def __init__(self, seconds: float = 1.0) -> None:
        super().__init__(f"again in {seconds:g} s")
        self.seconds = seconds


class Consumer:
    """The member `name` of `group`; names must differ among those that live, such as `<host>-<process>`.

    A group that doesn't exist begins after the id `since`, "$" for now. An event whose handler raises is
    delivered again after a pause, before any other, `deliveries` times in all, and is then set aside in
    `<key>:dead:<group>` with the reason. So is an entry that isn't finished in so many deliveries because
    its consumers die, or that can't be unpacked. What a consumer was given and left for `min_idle` seconds
    another takes over, so no event's handling may take as long. A consumer that wasn't seen for
    `forget_after` seconds and owns nothing is removed.

    >>> consumer = Consumer(stream, "audit", "host-1")  # doctest: +SKIP
    >>> consumer.run(lambda event: print(event.id, event.value))  # doctest: +SKIP
    """

    def __init__(
        self,
        stream: Stream,
        group: str,
        name: str,
        *,
        since: str = "0",
        deliveries: int = 5,
        min_idle: float = 60.0,
        forget_after: float = DAY,
        count: int = 10,
        longest_pause: float = 30.0,
    ) -> None:
        if deliveries < 1 or min_idle <= 0 or count < 1:
            raise ValueError("deliveries and count must be at least 1, and min_idle more than 0")
        self.stream = stream
        self.client = stream.client
        self.group = group
        self.name = name
        self.since = since if since == "$" else parse(since)[0]
        self.deliveries = deliveries
        self.min_idle = min_idle
        self.forget_after = max(forget_after, min_idle)
        self.count = count
        self.dead_letters_key = dead_letters_key(stream.key, group)
        self.rest_key = rest_key(stream.key, group)
        self._errors = BackOff(cap=longest_pause)
        self._last: str | None = None
        self._cursor = "0-0"
        self._look_at = 0.0
        self._kept_at = 0.0
        self._owing = True
        self._later: dict[str, float] = {}
        self._handled: list[str] = []
        self._acked_at = 0.0

    def run(self, handle: Callable[[Event], object], stop: threading.Event | None = None) -> None:
        """Give events to `handle` until `stop` is set, which is noticed within a second and between events.

        It keeps trying while Redis is unavailable. A group or stream that was deleted is created again; to
        skip nothing, the new group begins three times `min_idle` before what was read last.
        """
        stop = stop or threading.Event()
        backoff = BackOff()
        while not stop.is_set():
            try:
                self._turn(handle, stop)
                backoff.reset()
            except REDIS_ERRORS as error:
                self._owing = True
                if "NOGROUP" in str(error):
                    self._look_at = 0.0
                    self._create_group(backoff, stop)
                elif is_transient(error):
                    pause = backoff.next()
                    log.warning(
                        "%s: redis is unavailable (%s); trying again in %.1f s", self.stream.key, error, pause
                    )
                    stop.wait(pause)
                else:
                    raise

    def _turn(self, handle: Callable[[Event], object], stop: threading.Event) -> None:
        now = time.monotonic()
        if now >= self._look_at:
            self._cursor = text(
                _take_over(
                    self.client,
                    [self.stream.key],
                    [self.group, self.name, _ms(self.min_idle), self._cursor, _ms(self.forget_after)],
                )
            )
            # Also finds what was read for us in a reply that was lost.
            self._owing = True
            self._look_at = now + self.min_idle / 3
        try:
            if self._owing or any(due <= now for due in self._later.values()):
                self._redeliver(handle, stop)
            elif len(self._later) >= MOST_LATER:
                stop.wait(LONGEST_BLOCK)
            else:
                self._read(handle, stop)
        finally:
            self._acknowledge()

    def _read(self, handle: Callable[[Event], object], stop: threading.Event) -> None:
        """Wait for new entries and handle them."""
        next_at = min([self._look_at, *self._later.values()]) - time.monotonic()
        reply: Any = self.client.xreadgroup(
            self.group,
            self.name,
            {self.stream.key: ">"},
            count=self.count,
            block=block_ms(self.client, max(0.0, min(LONGEST_BLOCK, next_at))),
        )
        entries = _entries(reply)
        self._kept_at = time.monotonic()
        for n, (id, fields) in enumerate(entries):
            self._last = text(id)
            if not self._perform(text(id), fields, 0, 1, handle, stop):
                self._uncount([text(other) for other, _ in entries[n + 1 :]], 0)
                self._last = text(entries[-1][0])
                self._owing = True
                return

    def _redeliver(self, handle: Callable[[Event], object], stop: threading.Event) -> None:
        """Handle what we were given before: after an error, a crash, `Later`, or in a dead consumer's place.

        One at a time, each acknowledged before the next, so that only an entry that kills its consumers
        comes to have many deliveries.
        """
        self._acknowledge()
        owned = self._owned()
        self._later = {id: due for id, due in self._later.items() if id in owned}
        for id, delivered in owned.items():
            if self._later.get(id, 0.0) > time.monotonic():
                continue
            self._later.pop(id, None)
            if not self._redeliver_one(id, delivered, handle, stop):
                return
            self._acknowledge()
        self._owing = len(owned) == 2 * MOST_LATER and len(self._later) < MOST_LATER

    def _redeliver_one(
        self, id: str, delivered: int, handle: Callable[[Event], object], stop: threading.Event
    ) -> bool:
        if delivered >= self.deliveries:
            found: Any = self.client.xrange(self.stream.key, id, id)
            if found:
                reason = f"not finished in {delivered} deliveries: its consumers may have died of it"
                self._set_aside(id, found[0][1], reason, delivered)
                return True
        with self.client.pipeline(transaction=False) as pipeline:
            pipeline.xclaim(self.stream.key, self.group, self.name, 0, [id])
            pipeline.hget(self.rest_key, id)
            claimed, rest = pipeline.execute()
        if not claimed or claimed[0][1] is None:
            log.warning("%s: entry %s was trimmed before %s had handled it", self.stream.key, id, self.group)
            self._handled.append(id)
            return True
        return self._perform(id, claimed[0][1], int(rest or 0), delivered + 1, handle, stop)

    def _perform(
        self,
        id: str,
        fields: dict[bytes, bytes],
        first: int,
        delivery: int,
        handle: Callable[[Event], object],
        stop: threading.Event,
    ) -> bool:
        """Handle an entry's events from `first` on; False if it ended before its end, but for `Later`."""
        events, fault = unpack(id, fields.get(FIELD.encode(), b""))
        for event in events:
            if (index := index_of(event)) < first:
                continue
            if stop.is_set():
                self._put_back(id, index, delivery - 1)
                return False
            self._keep()
            try:
                handle(event)
            except Later as later:
                self._put_back(id, index, delivery - 1)
                self._later[id] = time.monotonic() + later.seconds
                return True
            except Exception as error:  # whatever a handler raises
                reason = f"{type(error).__name__}: {error}"
                pause = self._errors.next()
                log.warning("%s: %s failed on %s: %s", self.stream.key, self.group, event.id, reason)
                if delivery < self.deliveries:
                    self._put_back(id, index, delivery)
                else:
                    self._set_event_aside(event, reason, delivery)
                    self._put_back(id, index + 1, 0)
                self._acknowledge()
                stop.wait(pause)
                self._owing = True
                return False
            self._errors.reset()
        if fault:
            self._set_aside(id, fields, fault, delivery)
        else:
            self._handled.append(id)
            if time.monotonic() - self._acked_at > ACK_WITHIN:
                self._acknowledge()
        return True

    def _acknowledge(self) -> None:
        if self._handled:
            with self.client.pipeline(transaction=True) as pipeline:
                pipeline.xack(self.stream.key, self.group, *self._handled)
                pipeline.hdel(self.rest_key, *self._handled)
                pipeline.execute()
            self._handled.clear()
        self._acked_at = time.monotonic()

    def _set_aside(self, id: str, fields: dict[bytes, bytes], reason: str, deliveries: int) -> None:
        """A whole entry, which is acknowledged by it."""
        log.error("%s: %s sets %s aside: %s", self.stream.key, self.group, id, reason)
        record = entry_record(id, fields, reason=reason, deliveries=deliveries, consumer=self.name)
        set_aside(self.client, self.stream.key, self.group, record, id)

    def _set_event_aside(self, event: Event, reason: str, deliveries: int) -> None:
        log.error("%s: %s sets %s aside: %s", self.stream.key, self.group, event.id, reason)
        record = event_record(event.id, event.value, reason=reason, deliveries=deliveries, consumer=self.name)
        set_aside(self.client, self.stream.key, self.group, record)

    def _put_back(self, id: str, index: int, deliveries: int) -> None:
        """Note from which event on an entry is to be delivered again, and how many deliveries count."""
        with self.client.pipeline(transaction=True) as pipeline:
            pipeline.hset(self.rest_key, id, str(index))
            pipeline.expire(self.rest_key, REST_TTL)
            pipeline.execute()
        self._uncount([id], deliveries)

    def _uncount(self, ids: Sequence[str], deliveries: int) -> None:
        """Let only so many deliveries of these count."""
        if ids:
            self.client.xclaim(
                self.stream.key,
                self.group,
                self.name,
                0,
                list(ids),
                retrycount=max(0, deliveries),
                justid=True,
            )

    def _owned(self) -> dict[str, int]:
        """The ids of what we were given and haven't acknowledged, each with its deliveries, oldest first."""
        pending: list[dict[str, Any]] = self.client.xpending_range(
            self.stream.key, self.group, "-", "+", 2 * MOST_LATER, consumername=self.name
        )
        return {text(entry["message_id"]): int(entry["times_delivered"]) for entry in pending}

    def _keep(self) -> None:
        """Renew our hold on what we own, if that is due; what another took meanwhile stays with it."""
        now = time.monotonic()
        if now - self._kept_at > self.min_idle / 3:
            self._kept_at = now
            if owned := list(self._owned()):
                self.client.xclaim(self.stream.key, self.group, self.name, 0, owned, justid=True)  # type: ignore[arg-type]

    def _create_group(self, backoff: BackOff, stop: threading.Event) -> None:
        try:
            start = self._start()
            self.client.xgroup_create(self.stream.key, self.group, id=start, mkstream=True)
            log.info("%s: made the group %s, from %s on", self.stream.key, self.group, start)
        except REDIS_ERRORS as error:
            if "BUSYGROUP" in str(error):
                return  # another was faster
            if not is_transient(error):
                raise
            stop.wait(backoff.next())

    def _start(self) -> str:
        """After which id a new group begins."""
        last = self.stream.last_id()
        if self.since == "$":
            self.since = last
        if self._last is None:
            return self.since
        if _order(last) < _order(self._last):
            return "0-0"  # the stream is a new one
        rewound = max(0, _order(self._last)[0] - _ms(self.min_idle * _REWIND))
        return max(f"{rewound}-0", self.since, key=_order)


def _entries(reply: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """The entries in a reply for one stream, in either of the protocol's versions."""
    if not reply:
        return []
    if isinstance(reply, dict):
        return list(next(iter(reply.values()))[0])
    return list(reply[0][1])


def _order(id: str) -> tuple[int, int]:
    ms, _, sequence = id.partition("-")
    return int(ms), int(sequence)


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
