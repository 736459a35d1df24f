"""A cache: the value computed for a key is kept for a time, and computed by one process at a time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import copy
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from redis import Redis, RedisError

from packmule.coordination.cache.cached import Cached
from packmule.coordination.cache.entry import OVERSIZE, Entry, NotCacheable, decoded, encoded
from packmule.coordination.cache.expiry import Expiry, named_tags, seconds
from packmule.coordination.cache.lease import ANY, Lease, Place, tag_key, take
from packmule.coordination.cache.link import Link
from packmule.coordination.cache.lookup import NOTHING, lease_or_wait, look
from packmule.coordination.keys import bounded, named
from packmule.coordination.renewal import Renewer
from packmule.errors import UsageError
from packmule.units import MIB

__all__ = ["Cache", "EntryTooLarge", "NotCacheable"]

LARGEST_ENTRY = 64 * MIB
SHORTEST_LEASE = 0.1

QUIET = 30.0
"""Seconds in which a warning is logged once."""

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger(__name__)


class EntryTooLarge(UsageError, ValueError):
    """A value has more bytes than the cache keeps for one key."""


class Cache:
    """Values by key, kept for a time and shared by all processes that open a cache of the same `name`.

    `name` consists of letters, digits and `. _ -`; keys and tags are any text. Values are bytes or JSON
    values, None included, and are returned as JSON returns them, from the first call on: a tuple as a list.
    Values of more than `max_bytes` are not kept.

    The process that computes a value holds a lease of `lease` seconds and renews it. If it is killed, another
    process computes the value once the lease has ended. A lease is renewed for at most `longest` seconds, so
    that a process that hangs doesn't hold up the others forever. If that is no longer than `lease`, nothing
    is renewed, and no thread is needed for it.

    While Redis is unavailable, everything is computed and nothing is kept; this is logged twice a minute.
    Only invalidation raises then, because the old value would come back. Safe in threads and after a fork.

    >>> cache = Cache(client, "shop")  # doctest: +SKIP
    >>> cache.get_or_compute("price/7", lambda: {"eur": 12}, ttl=60, tags=["product/7"])  # doctest: +SKIP
    {'eur': 12}
    >>> cache.invalidate_tag("product/7")  # doctest: +SKIP
    """

    def __init__(
        self,
        client: Redis,
        name: str,
        *,
        max_bytes: int = MIB,
        lease: float = 3.0,
        longest: float = 300.0,
    ) -> None:
        if not isinstance(max_bytes, int) or not 1 <= max_bytes <= LARGEST_ENTRY:
            raise ValueError(f"max_bytes={max_bytes!r}: give a whole number from 1 to {LARGEST_ENTRY:,}")
        self.client = client
        self.name = named(name)
        self.max_bytes = max_bytes
        self.lease = seconds("lease", lease, SHORTEST_LEASE)
        self.longest = seconds("longest", longest, SHORTEST_LEASE)
        self._link = Link(client)
        self._renewer = Renewer()
        self._quiet_until: dict[str, float] = {}
        self._shapes: dict[str, str] = {}

    def with_lease(self, lease: float) -> Self:
        """This cache, by the same connections, with leases of so many seconds that nobody renews."""
        other = copy(self)
        other.lease = other.longest = seconds("lease", lease, SHORTEST_LEASE)
        return other

    def connect_before_isolation(self) -> None:
        """Connect, in a process that can't later. If that fails, nothing is kept."""
        with suppress(RedisError):
            self._link.call(("PING",))

    def get_or_compute(
        self,
        key: str,
        compute: Callable[[], T],
        *,
        ttl: float,
        stale_ttl: float = 0.0,
        tags: Sequence[str] = (),
        likely_new: bool = False,
    ) -> T:
        """The value kept for `key`, or the result of `compute()`, which is then kept for `ttl` seconds.

        After `ttl`, the value is kept stale for another `stale_ttl` seconds: while one process computes it
        again, other readers get the stale value at once. Without a stale value they wait. The value is valid
        until one of its `tags` is invalidated. A value invalidated during its computation is returned to its
        caller but not kept.

        A hit takes one round trip and a miss three; a key that is `likely_new` takes two either way. An
        exception of `compute` is raised, and one of the waiting readers tries next. Raises `NotCacheable` for
        a value that is neither bytes nor JSON, and `ValueError` for a span out of range. A value that is too
        large is returned but not kept; for `ttl` seconds, no reader waits for another's computation.
        """
        expiry = Expiry.of(ttl, stale_ttl, tags)
        at = Place(self.name, bounded(key), expiry.tags)
        found, lease = NOTHING, None
        try:
            if not likely_new:
                found = look(self._link, at)
            if found.is_due():
                found, lease = lease_or_wait(self._link, at, found, expiry.life_ms, self.lease, self.longest)
        except RedisError as error:
            self._log_outage(error)
            found = found if found.left > 0 else NOTHING
        if lease is None and found.is_kept:
            value: T = found.value
            return value
        if lease is None:
            return self._normal(compute())
        return self._compute(key, compute, expiry, lease)

    def get(self, key: str, default: Any = None, *, tags: Sequence[str] = ()) -> Any:
        """The value kept for `key` if it is valid; otherwise, and while Redis is unavailable, `default`.

        Pass the `tags` the value was kept with to save the round trip that looks them up.
        """
        names = named_tags(tags)
        at = Place(self.name, bounded(key), names)
        try:
            found = look(self._link, at)
        except RedisError as error:
            self._log_outage(error)
            return default
        return found.value if found.is_kept and found.left > 0 else default

    def put(
        self, key: str, value: Any, *, ttl: float, stale_ttl: float = 0.0, tags: Sequence[str] = ()
    ) -> bool:
        """Keep `value` for `key` like `get_or_compute`; returns whether it was kept.

        A value being computed for the key at the same time is not kept. Takes two round trips. Raises
        `EntryTooLarge`, `NotCacheable`, or `ValueError` for a span out of range.
        """
        expiry = Expiry.of(ttl, stale_ttl, tags)
        at = Place(self.name, bounded(key), expiry.tags)
        kind, body = encoded(value, self.max_bytes)
        if kind == OVERSIZE:
            raise EntryTooLarge(
                f"{key:.120}: the cache {self.name} keeps up to {self.max_bytes:,} bytes per key"
            )
        try:
            lease = take(self._link, at, ANY, expiry.life_ms, self.lease, self.longest)
            return isinstance(lease, Lease) and _keep(lease, expiry, kind, body, 0.0)
        except RedisError as error:
            self._log_outage(error)
            return False

    def invalidate(self, key: str) -> None:
        """Forget the value of `key`, and don't keep one that is being computed now.

        Raises `redis.RedisError` if that fails: try again, because the value may still be there.
        """
        at = Place(self.name, bounded(key), ())
        with self.client.pipeline(transaction=True) as pipeline:
            pipeline.delete(at.entry, at.lease)
            pipeline.publish(at.channel, "invalidated")
            pipeline.execute()

    def invalidate_tag(self, tag: str) -> None:
        """Forget all values with `tag`, and don't keep those being computed: one short command.

        Raises `redis.RedisError` like `invalidate`.
        """
        self.client.delete(tag_key(self.name, bounded(tag)))

    def cached(
        self,
        *,
        ttl: float,
        key: str | Callable[P, str],
        stale_ttl: float = 0.0,
        tags: Sequence[str] = (),
    ) -> Callable[[Callable[P, T]], Cached[P, T]]:
        """A decorator that keeps the function's results, one for each key made from its arguments.

        `key` and each of `tags` are templates with arguments in braces, by name or position, and a separator
        between two of them. Or `key` is a function that makes a key from the arguments. Different arguments
        make different keys (even `1` and "1"). Two functions of one cache need different templates.

        >>> @cache.cached(ttl=60, key="price/{product}/{1}", tags=["product/{product}"])  # doctest: +SKIP
        ... def price(product: int, currency: str = "eur") -> float: ...
        >>> price(7)  # doctest: +SKIP
        12.0
        >>> price.invalidate(7)  # doctest: +SKIP
        """
        expiry = Expiry.of(ttl, stale_ttl, tags)

        def decorate(function: Callable[P, T]) -> Cached[P, T]:
            def find(key: str, compute: Callable[[], T], tags: Sequence[str]) -> T:
                return self.get_or_compute(key, compute, ttl=ttl, stale_ttl=stale_ttl, tags=tags)

            made = Cached(function, key, expiry.tags, find, self.invalidate)
            owner = self._shapes.setdefault(made.shape, made.name)
            if owner != made.name:
                raise ValueError(f"{made.name}: {owner} already uses the key {key!r}: choose another")
            return made

        return decorate

    def close(self) -> None:
        """Close the cache's connections. It can still be used, and then opens new ones."""
        self._link.close()

    def __enter__(self) -> Cache:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the cache's connections."""
        self.close()

    def _compute(self, key: str, compute: Callable[[], T], expiry: Expiry, lease: Lease) -> T:
        if self.longest > self.lease:
            self._renewer.add(lease, self.lease / 3)
        begun = time.monotonic()
        try:
            result = compute()
            cost = time.monotonic() - begun
            kind, body = encoded(result, self.max_bytes)
        except BaseException:
            self._give_back(lease)
            raise
        finally:
            self._renewer.discard(lease)
        if kind == OVERSIZE:
            self._warn(
                "large",
                "the cache %s keeps up to %d bytes per key, so %.120s is computed each time",
                self.name,
                self.max_bytes,
                key,
            )
        try:
            _keep(lease, expiry, kind, body, cost)
        except RedisError as error:
            self._log_outage(error)
        normal: T = result if kind == OVERSIZE else decoded(kind, body)
        return normal

    def _give_back(self, lease: Lease) -> None:
        try:
            lease.give_back()
        except RedisError as error:
            self._log_outage(error)

    def _normal(self, value: T) -> T:
        """The value as a hit would return it."""
        kind, body = encoded(value, self.max_bytes)
        normal: T = value if kind == OVERSIZE else decoded(kind, body)
        return normal

    def _log_outage(self, error: RedisError) -> None:
        self._warn("without", "the cache %s works without Redis: %s", self.name, error)

    def _warn(self, about: str, text: str, *args: object) -> None:
        now = time.monotonic()
        if now >= self._quiet_until.get(about, 0.0):
            self._quiet_until[about] = now + QUIET
            logger.warning(text, *args)


def _keep(lease: Lease, expiry: Expiry, kind: bytes, body: bytes, cost: float) -> bool:
    versions = dict(zip(expiry.tags, lease.versions, strict=True))
    entry = Entry(bytes.fromhex(lease.id), kind, expiry.stale_ms, cost, versions, body)
    return lease.keep(entry.packed(), expiry.life_ms)
