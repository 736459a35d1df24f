"""Publish and subscribe: JSON messages, and a notice when a subscriber may have missed some."""

from __future__ import annotations

import contextlib
import enum
import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal, NamedTuple

import msgspec
from redis import Redis
from redis.exceptions import TimeoutError

from packmule.coordination.readable import readable
from packmule.coordination.redis.backoff import REDIS_ERRORS, BackOff, is_transient
from packmule.coordination.redis.replies import UNREADABLE, as_text

log = logging.getLogger("packmule.pubsub")


QUIET = 8.0
"""Seconds without a message after which a subscriber asks whether the server is still there."""

ANSWER_TIMEOUT = 3.0
"""Seconds that the server may take to say so, before the connection counts as lost."""

LARGEST_MESSAGE = 16_000
"""Bytes of JSON. Valkey 9 shares longer messages among subscribers and doesn't count them against the limit
that disconnects slow readers (https://github.com/valkey-io/valkey/issues/2396)."""


class Gap(enum.Enum):
    """The kind of `MISSED`."""

    MISSED = "missed"


MISSED: Final = Gap.MISSED
"""Delivered after each connect, the first included: messages may have been lost, so read the state again."""


class Message(NamedTuple):
    """A published value and its channel."""

    channel: str
    value: Any


def publish(client: Redis, channel: str, value: Any) -> int:
    """Publish `value` as JSON; returns the number of receivers. If the reply is lost, it may be sent twice.

    Raises `TypeError` if the value is not JSON, and `ValueError` above `LARGEST_MESSAGE`: store a large value
    and publish its key.
    """
    message = msgspec.json.encode(value)
    if len(message) > LARGEST_MESSAGE:
        raise ValueError(
            f"a message has at most {LARGEST_MESSAGE:,} bytes, not {len(message):,}: store the value"
        )
    return int(client.publish(channel, message))


class Subscriber:
    """A subscription to channels and patterns (`progress:*`) that reconnects by itself.

    It has its own connection. A message that is not JSON is dropped and counted in `dropped`. The server
    disconnects a reader that is too slow (`client-output-buffer-limit pubsub`); the reader then gets `MISSED`
    as after any lost connection. One thread reads; any thread may call `close`.

    >>> with Subscriber(client, ["pm:released"]) as subscriber:  # doctest: +SKIP
    ...     for message in subscriber:
    ...         refresh() if message is MISSED else show(message.value)
    """

    def __init__(self, client: Redis, channels: Sequence[str] = (), *, patterns: Sequence[str] = ()) -> None:
        if not channels and not patterns:
            raise ValueError("a subscription needs a channel or a pattern")
        self.client = client
        self.channels = tuple(dict.fromkeys(channels))
        self.patterns = tuple(dict.fromkeys(patterns))
        self.dropped = 0
        self._pubsub: Any = None
        self._heard_at = 0.0
        self._is_asking = False
        self._backoff = BackOff()
        self._level = logging.WARNING  # of the first failure; the others until it is subscribed say no more
        self._reading = threading.Lock()
        self._closing = threading.Event()
        self._wakes, self._wake = os.pipe()

    def __enter__(self) -> Subscriber:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Message | Literal[Gap.MISSED]]:
        """Messages and `MISSED` as they arrive, until closed."""
        while not self._closing.is_set():
            if (message := self.wait(60.0)) is not None:
                yield message

    def wait(self, timeout: float) -> Message | Literal[Gap.MISSED] | None:
        """The next message or `MISSED`; None after about `timeout` seconds, or at once when closed.

        It keeps trying while Redis is unavailable; an attempt to connect may take longer than `timeout`.
        Raises redis-py's error if it isn't transient, such as a missing permission.
        """
        ends_at = time.monotonic() + timeout
        with self._reading:
            try:
                while not self._closing.is_set():
                    try:
                        if (message := self._next()) is not None:
                            return message
                        sockets = [self._pubsub.connection._sock]
                        pause = min(ends_at - time.monotonic(), self._ask_if_quiet())
                    except REDIS_ERRORS as error:
                        self._disconnect()
                        if not is_transient(error):
                            raise
                        names = ", ".join(self.channels + self.patterns)
                        log.log(self._level, "can't subscribe to %s: %s", names, error)
                        self._level = logging.DEBUG
                        sockets = []
                        pause = min(self._backoff.next(), ends_at - time.monotonic())
                    self._sleep(sockets, pause)
                    if time.monotonic() >= ends_at:
                        return None
                return None
            finally:
                if self._closing.is_set():
                    self._release()

    def close(self) -> None:
        """End the subscription, from any thread: a waiting call returns None, and iteration ends."""
        if not self._closing.is_set():
            self._closing.set()
            with contextlib.suppress(OSError):
                os.write(self._wake, b"x")
        # A thread that is reading closes the connection itself.
        if self._reading.acquire(blocking=False):
            try:
                self._release()
            finally:
                self._reading.release()

    def _next(self) -> Message | Literal[Gap.MISSED] | None:
        """The next message that has arrived; None if there is none."""
        if self._pubsub is None:
            self._pubsub = self.client.pubsub()  # type: ignore[no-untyped-call]
            if self.channels:
                self._pubsub.subscribe(*self.channels)
            if self.patterns:
                self._pubsub.psubscribe(*self.patterns)
            self._hear()
        # redis-py reconnects silently, but the confirmations then arrive again.
        while self._arrived() and (reply := self._pubsub.get_message(timeout=1.0)) is not None:
            self._hear()
            kind = reply["type"]
            if kind in ("subscribe", "psubscribe"):
                if reply["data"] == len(self.channels) + len(self.patterns):
                    self._backoff.reset()
                    self._level = logging.WARNING
                    return MISSED
            elif kind in ("message", "pmessage"):
                try:
                    return Message(as_text(reply["channel"]), msgspec.json.decode(reply["data"]))
                except UNREADABLE:
                    self.dropped += 1
        return None

    def _hear(self) -> None:
        self._heard_at, self._is_asking = time.monotonic(), False

    def _ask_if_quiet(self) -> float:
        """Ask a server that has been quiet for long whether it is there; returns seconds until the next look.

        A host that is gone without a word closes no connection. Raises redis-py's `TimeoutError`.
        """
        left = self._heard_at + QUIET - time.monotonic()
        if left <= 0 and not self._is_asking:
            self._pubsub.ping()
            self._is_asking = True
        left += ANSWER_TIMEOUT if self._is_asking else 0
        if left <= 0:
            raise TimeoutError(f"the server gave no answer for {QUIET + ANSWER_TIMEOUT:g} s")
        return left

    def _arrived(self) -> bool:
        """Whether a reply has begun to arrive, or the connection has ended."""
        connection = self._pubsub.connection
        return connection._sock is None or bool(connection.can_read(timeout=0))

    def _sleep(self, sockets: list[Any], seconds: float) -> None:
        readable([self._wakes, *sockets], seconds)

    def _disconnect(self) -> None:
        if self._pubsub is not None:
            with contextlib.suppress(*REDIS_ERRORS):
                self._pubsub.close()
            self._pubsub = None

    def _release(self) -> None:
        """Close everything; the caller holds the lock."""
        self._disconnect()
        if self._wakes >= 0:
            os.close(self._wakes)
            os.close(self._wake)
            self._wakes = self._wake = -1
