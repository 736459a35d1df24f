"""A consumer: it handles each event of a stream that its group shares out, at least once in the group."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from packmule.coordination.redis.backoff import REDIS_ERRORS, BackOff, is_transient
from packmule.coordination.streams.dead_letters import entry_record, event_record
from packmule.coordination.streams.membership import MOST_HELD, Fields, Membership
from packmule.coordination.streams.stream import FIELD, LONGEST_BLOCK, Event, Stream, index_of, unpack
from packmule.units import DAY

ACK_WITHIN = 0.02
"""Seconds that the acknowledgement of a handled entry may wait for others, unless a handler takes longer."""

MOST_POSTPONED = MOST_HELD // 2
"""Entries postponed by `Later` at which a consumer reads no new ones."""

log = logging.getLogger("packmule.stream")

Handler = Callable[[Event], object]


class Later(Exception):
    """Raised by a handler: deliver this event and the rest of its entry again in `seconds`, uncounted."""

    def __init__(self, seconds: float = 1.0) -> None:
        super().__init__(f"again in {seconds:g} s")
        self.seconds = seconds


class Consumer:
    """The member `name` of `group`. Living members need different names, such as `<host>-<process>`.

    A group that doesn't exist begins after the id `since`, "$" for now.

    An event whose handler raises is delivered again after a pause, before any other. After `deliveries` it
    becomes a dead letter, stored with the reason in `<key>:dead:<group>`. So does an entry that can't be
    unpacked, and one that is not finished in `deliveries` because its consumers die.

    What a consumer holds for `min_idle` seconds without renewal is taken over by another, so the handling of
    one event must not take that long. A consumer unseen for `forget_after` seconds is removed if it holds
    nothing.

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
        self.group = group
        self.name = name
        self.deliveries = deliveries
        self.min_idle = min_idle
        self.forget_after = max(forget_after, min_idle)
        self.count = count
        self._member = Membership(stream, group, name, since, min_idle)
        self._errors = BackOff(cap=longest_pause)
        self._look_at = 0.0
        self._renewed_at = 0.0
        self._holds_undone = True
        self._postponed: dict[str, float] = {}
        self._handled: list[str] = []
        self._acked_at = 0.0

    def run(self, handle: Handler, stop: threading.Event | None = None) -> None:
        """Call `handle` with events until `stop` is set, which is noticed within a second and between events.

        It keeps trying while Redis is unavailable. A group or stream that was deleted is created again; to
        skip nothing, the new group begins three times `min_idle` before what was read last.
        """
        stop = stop or threading.Event()
        backoff = BackOff()
        while not stop.is_set():
            try:
                self._step(handle, stop)
                backoff.reset()
            except REDIS_ERRORS as error:
                self._holds_undone = True
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

    def _step(self, handle: Handler, stop: threading.Event) -> None:
        now = time.monotonic()
        if now >= self._look_at:
            self._member.take_over(self.forget_after)
            # Also finds entries that were read for this member in a lost reply.
            self._holds_undone = True
            self._look_at = now + self.min_idle / 3
        try:
            if self._holds_undone or any(due <= now for due in self._postponed.values()):
                self._redeliver(handle, stop)
            elif len(self._postponed) >= MOST_POSTPONED:
                stop.wait(LONGEST_BLOCK)
            else:
                self._read(handle, stop)
        finally:
            self._acknowledge()

    def _read(self, handle: Handler, stop: threading.Event) -> None:
        """Wait for new entries and handle them."""
        next_at = min([self._look_at, *self._postponed.values()]) - time.monotonic()
        entries = self._member.read(self.count, min(LONGEST_BLOCK, next_at))
        self._renewed_at = time.monotonic()
        for n, (id, fields) in enumerate(entries):
            self._member.last = id
            if not self._perform(id, fields, 0, 1, handle, stop):
                self._member.set_deliveries([other for other, _ in entries[n + 1 :]], 0)
                self._member.last = entries[-1][0]
                self._holds_undone = True
                return

    def _redeliver(self, handle: Handler, stop: threading.Event) -> None:
        """Handle what this member holds already: after an error, a crash, `Later` or a takeover.

        One entry at a time, each acknowledged before the next, so that only an entry that kills its consumers
        collects deliveries.
        """
        self._acknowledge()
        held = self._member.held()
        self._postponed = {id: due for id, due in self._postponed.items() if id in held}
        for id, delivered in held.items():
            if self._postponed.get(id, 0.0) > time.monotonic():
                continue
            self._postponed.pop(id, None)
            if not self._redeliver_one(id, delivered, handle, stop):
                return
            self._acknowledge()
        self._holds_undone = len(held) == MOST_HELD and len(self._postponed) < MOST_POSTPONED

    def _redeliver_one(self, id: str, delivered: int, handle: Handler, stop: threading.Event) -> bool:
        if delivered >= self.deliveries and (fields := self._member.find(id)) is not None:
            reason = f"not finished in {delivered} deliveries: it may have killed its consumers"
            self._set_aside(id, fields, reason, delivered)
            return True
        claimed = self._member.claim(id)
        if claimed is None:
            log.warning("%s: entry %s was trimmed before %s had handled it", self.stream.key, id, self.group)
            self._handled.append(id)
            return True
        return self._perform(id, *claimed, delivered + 1, handle, stop)

    def _perform(
        self, id: str, fields: Fields, first: int, delivery: int, handle: Handler, stop: threading.Event
    ) -> bool:
        """Handle an entry's events from `first` on; False if it stopped early, except for `Later`."""
        events, fault = unpack(id, fields.get(FIELD.encode(), b""))
        for event in events:
            if (index := index_of(event)) < first:
                continue
            if stop.is_set():
                self._member.put_back(id, index, delivery - 1)
                return False
            self._renew()
            try:
                handle(event)
            except Later as later:
                self._member.put_back(id, index, delivery - 1)
                self._postponed[id] = time.monotonic() + later.seconds
                return True
            except Exception as error:  # whatever a handler raises
                reason = f"{type(error).__name__}: {error}"
                pause = self._errors.next()
                log.warning("%s: %s failed on %s: %s", self.stream.key, self.group, event.id, reason)
                if delivery < self.deliveries:
                    self._member.put_back(id, index, delivery)
                else:
                    self._set_event_aside(event, reason, delivery)
                    self._member.put_back(id, index + 1, 0)
                self._acknowledge()
                stop.wait(pause)
                self._holds_undone = True
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
            self._member.acknowledge(self._handled)
            self._handled.clear()
        self._acked_at = time.monotonic()

    def _set_aside(self, id: str, fields: Fields, reason: str, deliveries: int) -> None:
        """Make a whole entry a dead letter, which acknowledges it."""
        log.error("%s: %s sets %s aside: %s", self.stream.key, self.group, id, reason)
        record = entry_record(id, fields, reason=reason, deliveries=deliveries, consumer=self.name)
        self._member.set_aside(record, id)

    def _set_event_aside(self, event: Event, reason: str, deliveries: int) -> None:
        log.error("%s: %s sets %s aside: %s", self.stream.key, self.group, event.id, reason)
        record = event_record(event.id, event.value, reason=reason, deliveries=deliveries, consumer=self.name)
        self._member.set_aside(record)

    def _renew(self) -> None:
        now = time.monotonic()
        if now - self._renewed_at > self.min_idle / 3:
            self._renewed_at = now
            self._member.renew()

    def _create_group(self, backoff: BackOff, stop: threading.Event) -> None:
        try:
            self._member.create_group()
        except REDIS_ERRORS as error:
            if "BUSYGROUP" in str(error):
                return  # another member was faster
            if not is_transient(error):
                raise
            stop.wait(backoff.next())
