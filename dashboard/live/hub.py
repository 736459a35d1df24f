"""The hub: one thread that watches the server for all viewers, and notifies them of what changed."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import threading
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from redis import Redis

from packmule.coordination.redis.backoff import REDIS_ERRORS, BackOff
from packmule.dashboard.live.changes import EVERYTHING, Changes

SHORTEST = 0.25
"""Seconds between two notices at least."""

LONGEST = 5.0
FETCHES = 40
"""Pages that viewers may fetch in a second because of notices: more viewers are told less often."""

LINGER = 30.0
"""Seconds for which the hub goes on watching when nobody has asked for a page or its stream."""

PATIENCE = 1.0
"""Seconds that a page or a stream waits for the hub to begin, if Redis doesn't answer."""

MOST_REMEMBERED = 10_000
"""Topics whose last change is remembered; past that, whoever was away is told that everything changed."""

_NUMBER = re.compile(r"[0-9]{1,18}")

log = logging.getLogger("packmule.dashboard")


@dataclass(eq=False)
class Subscriber:
    """A viewer's open page; `arrived` is set when there are `topics` or another `state` to send.

    `position` is the hub's up to which `topics` has all that changed.
    """

    wanted: frozenset[str]
    loop: asyncio.AbstractEventLoop
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    topics: set[str] = field(default_factory=set)
    position: str = ""

    def notice(self, topics: Collection[str], position: str) -> None:
        """Note what changed; in the subscriber's loop."""
        self.position = position
        found = self.wanted.intersection(topics) if "*" not in topics else EVERYTHING
        if found:
            self.topics |= found
            self.arrived.set()


class Hub:
    """Watches `client`'s server while somebody looks at a page of it.

    `generation` grows before each notice, so that what was read in an earlier one is known to be old. A page
    that was made at a `position` and subscribes from there is told what changed since, and nothing else.

    >>> hub = Hub(client, ("default",))  # doctest: +SKIP
    >>> await hub.ready()  # doctest: +SKIP
    >>> position = hub.position  # then make the page  # doctest: +SKIP
    >>> hub.subscribe({"jobs"}, position).topics  # doctest: +SKIP
    {'jobs'}
    """

    def __init__(self, client: Redis, queues: Sequence[str] = ()) -> None:
        self.generation = 0
        self.is_away = False
        self.is_watching = False
        self._name = secrets.token_hex(4)
        self._changes = Changes(client, queues)
        self._changed: dict[str, int] = {}
        self._known_since = 0
        self._subscribers: set[Subscriber] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._asked_at = 0.0
        self._paced_until = 0.0
        self._stopped = threading.Event()

    @property
    def position(self) -> str:
        """Up to where notices have been sent; nothing if the server isn't watched now."""
        return f"{self._name}-{self.generation}" if self.is_watching else ""

    async def ready(self) -> None:
        """Watch from now on: wait until the hub has begun, or until Redis is known not to answer."""
        self._asked_at = time.monotonic()
        if self.is_watching or self.is_away or self._stopped.is_set():
            return
        waiting = self.subscribe(())
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    while not self.is_watching and not self.is_away:
                        await waiting.arrived.wait()
                        waiting.arrived.clear()
        finally:
            self.unsubscribe(waiting)

    def subscribe(self, wanted: Collection[str], since: str | None = None) -> Subscriber:
        """A page that depends on the topics `wanted` is open; call this in its event loop.

        `since` is the position at which it was made, or up to which it has been notified. If the hub doesn't
        know what changed since, everything has. None is for a page that needs no more than what comes.
        """
        subscriber = Subscriber(frozenset(wanted), asyncio.get_running_loop())
        with self._lock:
            self._subscribers.add(subscriber)
            subscriber.position = self.position
            if self.is_watching and since is not None:
                subscriber.topics = self._missed(subscriber.wanted, since)
            if self._thread is None and not self._stopped.is_set():
                self._thread = threading.Thread(target=self._watch, name="packmule-live", daemon=True)
                self._thread.start()
        return subscriber

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """The page is closed."""
        with self._lock:
            self._subscribers.discard(subscriber)

    def close(self) -> None:
        """Stop watching for good, and wait until the thread has ended."""
        self._stopped.set()
        if thread := self._thread:
            thread.join()

    def pace(self) -> float:
        """Seconds from one notice to the next: the longer, the more pages would be fetched."""
        return min(LONGEST, max(SHORTEST, len(self._subscribers) / FETCHES))

    def rest(self) -> float:
        """Seconds until the next notice may follow the one that was just sent.

        After a quiet time two may follow each other at once: else who is told of a new minute would be told
        late of a job right behind it.
        """
        now, pace = time.monotonic(), self.pace()
        self._paced_until = max(now, self._paced_until) + pace
        return max(SHORTEST, self._paced_until - now - pace)

    def number_of(self, position: str) -> int | None:
        """The generation of a position; None if another process's hub, or nobody, has given it."""
        name, _, number = position.partition("-")
        if name != self._name or not _NUMBER.fullmatch(number) or int(number) > self.generation:
            return None
        return int(number)

    def _missed(self, wanted: frozenset[str], since: str) -> set[str]:
        number = self.number_of(since)
        if number is None or number < self._known_since:
            return set(EVERYTHING)
        return {topic for topic in wanted if self._changed.get(topic, 0) > number}

    def _watch(self) -> None:
        backoff = BackOff()
        while not self._stopped.is_set():
            try:
                topics = self._next()
                backoff.reset()
            except REDIS_ERRORS as error:
                if not self.is_away:
                    log.warning("pages are not live until Redis answers again: %s", error)
                self._lose()
                self._stopped.wait(backoff.next())
            except Exception:  # nothing may end the one thread that all pages rely on
                log.exception("a change could not be read")
                self.is_watching = False
                self._stopped.wait(backoff.next())
            else:
                if topics:
                    self._publish(topics)
                    self._stopped.wait(self.rest())
            if self._may_rest():
                return

    def _next(self) -> Collection[str]:
        """What changed; everything if it isn't known what happened until now, but will be from now on."""
        if self.is_watching:
            return self._changes.next()
        self._changes.begin()
        return EVERYTHING

    def _lose(self) -> None:
        """Redis doesn't answer: what happens until it does won't be known."""
        with self._lock:
            self.is_watching, self.is_away = False, True
        self._publish(())

    def _may_rest(self) -> bool:
        """End the thread, unless a viewer has come in this moment."""
        with self._lock:
            if self._subscribers or time.monotonic() - self._asked_at < LINGER:
                return False
            self.is_watching = self.is_away = False
            self._thread = None
            return True

    def _publish(self, topics: Collection[str]) -> None:
        """Notify whoever is subscribed now, and note it for whoever comes later."""
        with self._lock:
            if topics:
                self.generation += 1
                self._remember(topics)
                self.is_watching, self.is_away = True, False
            position = self.position
            loops: dict[asyncio.AbstractEventLoop, list[Subscriber]] = {}
            for each in self._subscribers:
                loops.setdefault(each.loop, []).append(each)
        for loop, subscribers in loops.items():
            try:
                loop.call_soon_threadsafe(self._notify, subscribers, topics, position)
            except RuntimeError:  # the loop has ended, and its pages with it
                for each in subscribers:
                    self.unsubscribe(each)

    def _remember(self, topics: Collection[str]) -> None:
        if "*" in topics or len(self._changed) + len(topics) > MOST_REMEMBERED:
            self._changed.clear()
            self._known_since = self.generation
        self._changed.update(dict.fromkeys(topics, self.generation))

    def _notify(self, subscribers: Sequence[Subscriber], topics: Collection[str], position: str) -> None:
        for each in subscribers:
            if topics:
                each.notice(topics, position)
            else:
                each.arrived.set()
