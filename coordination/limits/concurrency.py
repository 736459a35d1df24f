"""A concurrency limit by key: so many holders at once, each for as long as its lease."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from redis import Redis
from redis.exceptions import ResponseError

from packmule.coordination.keys import bounded, named, taken
from packmule.coordination.redis.scripts import Script
from packmule.units import YEAR

LONGEST_LEASE = float(YEAR)
SHORTEST_LEASE = 0.001
MOST_SLOTS = 1_000_000

_take = Script("coordination.limits", "take_slot")
_renew = Script("coordination.limits", "renew_slot")


class NoFreeSlot(RuntimeError):
    """All slots are held; `retry_after` is in how many seconds the next lease ends, if it is not renewed."""

    def __init__(self, key: str, slots: int, retry_after: float) -> None:
        super().__init__(f"{key} has {slots} at once already: try again in at most {retry_after:.3g} s")
        self.key = key
        self.slots = slots
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Slot:
    """The right to be one of a few, until `time.monotonic()` is `until` unless renewed."""

    key: str
    holder: str
    until: float


class ConcurrencyLimit:
    """At most `slots` holders of each key at once, by the server's clock.

    A holder that vanishes counts until its `lease` (seconds) ends. What goes on past the end of its lease
    runs beside whoever got the slot then: renew in time, or choose a lease that is long enough. `name` is as
    for `RateLimit`.

    >>> imports = ConcurrencyLimit(client, "imports", slots=2, lease=30)  # doctest: +SKIP
    >>> with imports.hold("acme"):  # doctest: +SKIP
    ...     ...
    """

    def __init__(self, client: Redis, name: str, slots: int, lease: float) -> None:
        if not isinstance(slots, int) or isinstance(slots, bool) or not 1 <= slots <= MOST_SLOTS:
            raise ValueError(f"slots={slots!r}: give a whole number from 1 to {MOST_SLOTS:,}")
        if not isinstance(lease, int | float) or not SHORTEST_LEASE <= lease <= LONGEST_LEASE:
            raise ValueError(f"lease={lease!r}: give seconds, from 0.001 to those of a year")
        self.client = client
        self.name = named(name)
        self.slots = slots
        self.lease = lease

    def acquire(self, key: str) -> Slot:
        """Take a slot of `key`, and return at once. Raises `NoFreeSlot`."""
        holder, until = uuid.uuid4().hex, time.monotonic() + self.lease
        wait = self._call(_take, key, [holder, self.slots, self.lease])
        if wait:
            raise NoFreeSlot(key, self.slots, float(wait))
        return Slot(key, holder, until)

    def renew(self, slot: Slot) -> Slot | None:
        """The slot with its lease begun anew; None if it ended before, and others may hold it."""
        until = time.monotonic() + self.lease
        held = self._call(_renew, slot.key, [slot.holder, self.lease])
        return Slot(slot.key, slot.holder, until) if held else None

    def release(self, slot: Slot) -> None:
        """Free the slot; nothing happens if its lease has ended, whoever holds it now."""
        stored_at = self.key(slot.key)
        try:
            self.client.zrem(stored_at, slot.holder)
        except ResponseError as error:
            raise taken(error, stored_at, "sorted set") from None

    @contextmanager
    def hold(self, key: str) -> Iterator[Slot]:
        """Hold a slot of `key` for the time of a `with` block. Raises `NoFreeSlot`."""
        slot = self.acquire(key)
        try:
            yield slot
        finally:
            self.release(slot)

    def key(self, key: str) -> str:
        """Where Redis keeps the holders of `key`."""
        return f"pm:slots:{self.name}:{bounded(key)}"

    def _call(self, script: Script, key: str, args: list[object]) -> Any:
        stored_at = self.key(key)
        try:
            return script(self.client, [stored_at], args)
        except ResponseError as error:
            raise taken(error, stored_at, "sorted set") from None
