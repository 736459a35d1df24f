"""A concurrency limit by key: a number of holders at once, each for the length of its lease."""

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
from packmule.errors import Conflict
from packmule.units import YEAR, span

LONGEST_LEASE = float(YEAR)
SHORTEST_LEASE = 0.001
MOST_SLOTS = 1_000_000

_take = Script("coordination.limits", "take_slot")
_renew = Script("coordination.limits", "renew_slot")


class NoFreeSlot(Conflict, RuntimeError):
    """All slots are held; the next lease ends in `retry_after` seconds unless it is renewed."""

    def __init__(self, key: str, slots: int, retry_after: float) -> None:
        super().__init__(f"{key} already has {slots} at once: try again in at most {span(retry_after)}")
        self.key = key
        self.slots = slots
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Slot:
    """A held slot; it ends when `time.monotonic()` reaches `until` unless it is renewed."""

    key: str
    holder: str
    until: float


class ConcurrencyLimit:
    """At most `slots` holders of each key at once, by the server's clock.

    A holder that vanishes counts until its `lease` (seconds) ends. Work that outlives its lease runs beside
    the next holder of the slot, so renew in time or choose a lease that is long enough. `name` is the same as
    for `RateLimit`.

    >>> imports = ConcurrencyLimit(client, "imports", slots=2, lease=30)  # doctest: +SKIP
    >>> with imports.hold("acme"):  # doctest: +SKIP
    ...     ...
    """

    def __init__(self, client: Redis, name: str, slots: int, lease: float) -> None:
        if not isinstance(slots, int) or isinstance(slots, bool) or not 1 <= slots <= MOST_SLOTS:
            raise ValueError(f"slots={slots!r}: give a whole number from 1 to {MOST_SLOTS:,}")
        if not isinstance(lease, int | float) or not SHORTEST_LEASE <= lease <= LONGEST_LEASE:
            raise ValueError(f"lease={lease!r}: give a number of seconds from 0.001 to a year")
        self.client = client
        self.name = named(name)
        self.slots = slots
        self.lease = lease

    def acquire(self, key: str) -> Slot:
        """Take a slot of `key` without waiting. Raises `NoFreeSlot`."""
        holder, until = uuid.uuid4().hex, time.monotonic() + self.lease
        wait = self._call(_take, key, [holder, self.slots, self.lease])
        if wait:
            raise NoFreeSlot(key, self.slots, float(wait))
        return Slot(key, holder, until)

    def renew(self, slot: Slot) -> Slot | None:
        """The slot with a full lease again; None if it had ended, so that another may hold it."""
        until = time.monotonic() + self.lease
        held = self._call(_renew, slot.key, [slot.holder, self.lease])
        return Slot(slot.key, slot.holder, until) if held else None

    def release(self, slot: Slot) -> None:
        """Free the slot. Does nothing if its lease has ended, even if another holds the slot now."""
        stored_at = self.key(slot.key)
        try:
            self.client.zrem(stored_at, slot.holder)
        except ResponseError as error:
            raise taken(error, stored_at, "sorted set") from None

    @contextmanager
    def hold(self, key: str) -> Iterator[Slot]:
        """Hold a slot of `key` during a `with` block. Raises `NoFreeSlot`."""
        slot = self.acquire(key)
        try:
            yield slot
        finally:
            self.release(slot)

    def key(self, key: str) -> str:
        """The Redis key of the holders of `key`."""
        return f"pm:slots:{self.name}:{bounded(key)}"

    def _call(self, script: Script, key: str, args: list[object]) -> Any:
        stored_at = self.key(key)
        try:
            return script(self.client, [stored_at], args)
        except ResponseError as error:
            raise taken(error, stored_at, "sorted set") from None
