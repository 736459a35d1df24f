"""A capped stream of events, several per entry, readable from any position with missed events reported."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
from redis import Redis

from packmule.coordination.redis.backoff import REDIS_ERRORS, BackOff, is_transient
from packmule.coordination.redis.replies import UNREADABLE, as_text
from packmule.coordination.redis.scripts import Script

FIELD = "e"
"""The one field of an entry: a msgpack array of events."""

READ_ENTRIES = 100
LONGEST_BLOCK = 0.5
"""Seconds after which a waiting reader checks whether to stop."""

_ID = re.compile(r"(\d{1,20})(?:-(\d{1,20}))?(?:/(\d{1,9}))?")
_BEGINNING = "0-0"
_read_after = Script("coordination.streams", "read_after")

log = logging.getLogger("packmule.stream")


class Event(NamedTuple):
    """One event: its id, `<entry>/<index in the entry>`, and the value that was appended, or `Missed`."""

    id: str
    value: Any


class Missed(NamedTuple):
    """In place of an event: the number of entries that were trimmed unread before it; None if unknown."""

    entries: int | None


class Stream:
    """The stream at `key`: about `max_entries` entries, and after `trim` none older than `max_age` seconds.

    Entries are trimmed in blocks of a hundred, so it may be longer by that many. An event is any msgpack
    value; text must be UTF-8. If the connection is lost in `append`, the command is repeated and the events
    may be there twice. Entries must not be deleted from the middle.

    >>> stream = Stream(client, "shop:events", max_entries=100_000)  # doctest: +SKIP
    >>> stream.append([["finished", "job-1"], ["failed", "job-2"]])  # doctest: +SKIP
    '1795656167000-0'
    """

    def __init__(self, client: Redis, key: str, *, max_entries: int, max_age: float | None = None) -> None:
        if max_entries < 1 or (max_age is not None and max_age <= 0):
            raise ValueError(f"max_entries={max_entries}, max_age={max_age}: both must be more than 0")
        self.client = client
        self.key = key
        self.max_entries = max_entries
        self.max_age = max_age

    def append(self, events: Sequence[Any]) -> str:
        """Append one entry with these events in one round trip; returns its id.

        Raises `ValueError` if there are no events, and `TypeError` for a value that msgpack can't encode.
        """
        if not events:
            raise ValueError("an entry needs at least one event")
        packed = msgspec.msgpack.encode(list(events))
        entry = self.client.xadd(self.key, {FIELD: packed}, maxlen=self.max_entries, approximate=True)
        return as_text(entry)

    def trim(self) -> int:
        """Remove exactly the surplus and the entries too old by the server's clock; returns how many."""
        removed = int(self.client.xtrim(self.key, maxlen=self.max_entries, approximate=False))
        if self.max_age is not None:
            seconds, microseconds = self.client.time()
            oldest = int((seconds - self.max_age) * 1000 + microseconds / 1000)
            removed += int(self.client.xtrim(self.key, minid=max(0, oldest), approximate=False))
        return removed

    def last_id(self) -> str:
        """The id of the last entry ever appended, "0-0" if there was none."""
        if not self.client.exists(self.key):
            return _BEGINNING
        return as_text(self.client.xinfo_stream(self.key)["last-generated-id"])

    def read(self, after: str = "0", *, count: int = READ_ENTRIES, block: float = 0.0) -> list[Event]:
        """The events after an id, of up to `count` entries.

        The id is that of an event or entry, or a time in Unix milliseconds. Waits up to `block` seconds for
        the first event. An entry that can't be unpacked is skipped and logged. Raises `ValueError` for an
        invalid id, and redis-py's errors.
        """
        reader = _Reader(self, after)
        ends_at = time.monotonic() + block
        while not (events := reader.read(count)) and (left := ends_at - time.monotonic()) > 0:
            reader.wait(min(left, LONGEST_BLOCK))
        return events

    def read_all(self, after: str = "0") -> Iterator[Event]:
        """All present events after an id, a hundred entries per round trip. Raises what `read` does."""
        while events := self.read(after):
            yield from events
            after = events[-1].id

    def follow(self, since: str = "$", *, stop: threading.Event | None = None) -> Iterator[Event]:
        """Events after the id `since` (default: from now on) as they arrive, until `stop` is set.

        It keeps trying while Redis is unavailable, and continues where it was. If entries were trimmed before
        it read them, it yields an event whose value is `Missed`.

        >>> for id, value in stream.follow("0"):  # doctest: +SKIP
        ...     print(id, value)
        """
        reader = _Reader(self, self.last_id() if since == "$" else since)
        return _follow(reader, stop or threading.Event())


class _Reader:
    """A position in a stream."""

    def __init__(self, stream: Stream, after: str) -> None:
        self.stream = stream
        self.after, self._skip = parse(after)
        self._number = ""

    def read(self, count: int) -> list[Event]:
        """The next events, of up to `count` entries."""
        events: list[Event] = []
        if self._skip is not None:
            found: Any = self.stream.client.xrange(self.stream.key, self.after, self.after)
            for id, fields in found:
                whole = self._unpack(as_text(id), fields.get(FIELD.encode(), b""))
                events += [event for event in whole if index_of(event) > self._skip]
        while True:
            after, number, missed, entries = _read_after(
                self.stream.client, [self.stream.key], [self.after, self._number, count]
            )
            if missed:
                first = as_text(entries[0]) if entries else as_text(after)
                events.append(Event(first, Missed(missed if missed > 0 else None)))
            for id, value in zip(entries[::2], entries[1::2], strict=True):
                events += self._unpack(as_text(id), value)
            # Moved only now, so that an error before this skips nothing.
            self.after, self._number, self._skip = as_text(after), as_text(number), None
            if events or not entries:
                return events

    def wait(self, seconds: float) -> None:
        """Return when there is more to read, or after `seconds`."""
        milliseconds = block_ms(self.stream.client, seconds)
        self.stream.client.xread({self.stream.key: self.after}, count=1, block=milliseconds)

    def _unpack(self, id: str, value: bytes) -> list[Event]:
        events, fault = unpack(id, value)
        if fault:
            log.warning("%s: entry %s was skipped in whole or in part: %s", self.stream.key, id, fault)
        return events


def _follow(reader: _Reader, stop: threading.Event) -> Iterator[Event]:
    backoff = BackOff()
    while not stop.is_set():
        events: list[Event] = []
        try:
            events = reader.read(READ_ENTRIES)
            if not events:
                reader.wait(LONGEST_BLOCK)
            backoff.reset()
        except REDIS_ERRORS as error:
            if not is_transient(error):
                raise
            stop.wait(backoff.next())
        yield from events


def parse(id: str) -> tuple[str, int | None]:
    """The entry and the index in an id; the index is None for a whole entry.

    >>> parse("1795656167000-3/7"), parse("0")
    (('1795656167000-3', 7), ('0-0', None))
    """
    match = _ID.fullmatch(id)
    if match is None:
        raise ValueError(f"{id!r:.120} is not an event's id: write one like 1795656167000-0/3, 0 or $")
    return f"{match[1]}-{match[2] or 0}", int(match[3]) if match[3] else None


def index_of(event: Event) -> int:
    """The index of an event in its entry, from 0."""
    return int(event.id.rpartition("/")[2])


def unpack(id: str, value: bytes) -> tuple[list[Event], str]:
    """The events of an entry, and what is wrong with those left out, or ""."""
    try:
        return [Event(f"{id}/{n}", each) for n, each in enumerate(_all.decode(value))], ""
    except UNREADABLE:
        pass
    # One job's broken name must not cost the others in the entry their events.
    events, fault = [], ""
    try:
        raws = _each.decode(value)
    except UNREADABLE as error:
        return [], f"it is not a msgpack array ({error})"
    for n, raw in enumerate(raws):
        try:
            events.append(Event(f"{id}/{n}", msgspec.msgpack.decode(raw)))
        except UNREADABLE as error:
            fault = fault or f"its event {n} can't be unpacked ({error})"
    return events, fault


def block_ms(client: Redis, seconds: float) -> int:
    """Milliseconds that a command may block: fewer than the client waits for a reply."""
    timeout = client.connection_pool.connection_kwargs.get("socket_timeout")
    return max(1, int(1000 * (seconds if timeout is None else min(seconds, timeout / 2))))


_all = msgspec.msgpack.Decoder(list[Any])
_each = msgspec.msgpack.Decoder(list[msgspec.Raw])
