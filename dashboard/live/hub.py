"""The hub: one thread that watches the server for all viewers, and notifies them of what changed."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Collection, Sequence
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
"""Seconds for which the hub goes on watching without viewers."""

log = logging.getLogger("packmule.dashboard")


@dataclass(eq=False)
class Subscriber:
    """A viewer's open page; `arrived` is set when there are `topics` or another `state` to send."""

    wanted: frozenset[str]
    loop: asyncio.AbstractEventLoop
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    topics: set[str] = field(default_factory=set)

    def notice(self, topics: Collection[str]) -> None:
        """Note what changed; in the subscriber's loop."""
        found = self.wanted.intersection(topics) if "*" not in topics else EVERYTHING
        if found:
            self.topics |= found
            self.arrived.set()


class Hub:
    """Watches `client`'s server while somebody looks at a page of it.

    `generation` grows before each notice, so that what was read in an earlier one is known to be old.
    """

    def __init__(self, client: Redis, queues: Sequence[str] = ()) -> None:
        self.generation = 0
        self.is_away = False
        self._changes = Changes(client, queues)
        self._subscribers: set[Subscriber] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()

    @property
    def is_watching(self) -> bool:
        """Whether `generation` follows what happens on the server."""
        return self._thread is not None and not self.is_away

    def subscribe(self, wanted: Collection[str]) -> Subscriber:
        """A page that depends on the topics `wanted` is open; call this in its event loop."""
        subscriber = Subscriber(frozenset(wanted), asyncio.get_running_loop())
        with self._lock:
            self._subscribers.add(subscriber)
            if self._thread is None:
                self.generation += 1
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
        """Seconds until the next notice: the longer, the more pages would be fetched."""
        return min(LONGEST, max(SHORTEST, len(self._subscribers) / FETCHES))

    def _watch(self) -> None:
        backoff, unused = BackOff(), 0.0
        while not self._stopped.is_set():
            try:
                topics = self._changes.next()
                if self.is_away:
                    self.is_away, topics = False, set(EVERYTHING)
                backoff.reset()
            except REDIS_ERRORS as error:
                if not self.is_away:
                    log.warning("pages are not live until Redis answers again: %s", error)
                self._changes.forget()
                self.is_away = True
                self._publish(())
                self._stopped.wait(backoff.next())
                continue
            except Exception:  # nothing may end the one thread that all pages rely on
                log.exception("a change could not be read")
                topics = set(EVERYTHING)
            if topics:
                self.generation += 1
                self._publish(topics)
                self._stopped.wait(self.pace())
            unused = 0.0 if self._subscribers else unused + 1.0
            if unused >= LINGER and self._may_rest():
                return

    def _may_rest(self) -> bool:
        """End the thread unless a viewer has come in this moment."""
        with self._lock:
            if self._subscribers:
                return False
            self._thread = None
            self._changes.forget()
            return True

    def _publish(self, topics: Collection[str]) -> None:
        with self._lock:
            loops: dict[asyncio.AbstractEventLoop, list[Subscriber]] = {}
            for each in self._subscribers:
                loops.setdefault(each.loop, []).append(each)
        for loop, subscribers in loops.items():
            try:
                loop.call_soon_threadsafe(self._notify, subscribers, topics)
            except RuntimeError:  # the loop has ended, and its pages with it
                for each in subscribers:
                    self.unsubscribe(each)

    def _notify(self, subscribers: Sequence[Subscriber], topics: Collection[str]) -> None:
        for each in subscribers:
            if topics:
                each.notice(topics)
            else:
                each.arrived.set()
