"""Endings: hears at once which users' sessions and which tokens have ended, while there are streams."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from packmule.coordination.sessions.sessions import ENDED_CHANNEL, user_key
from packmule.coordination.streams.pubsub import MISSED, Subscriber
from packmule.plain_text import plain

if TYPE_CHECKING:
    from redis import Redis

LINGER = 30.0
"""Seconds for which the subscription is kept without streams."""

LOOK_INTERVAL = 1.0
"""Seconds after which the thread looks whether it is still wanted."""

KEY_LENGTH = 32
"""How much of a token's hash names it here."""

Doubt = Callable[[str | None], None]
"""What is told whose rights may have ended, in the event loop; None stands for everybody."""

logger = logging.getLogger(__name__)


def session_holder(user: str) -> str:
    """What `Endings` calls the holder of a user's sessions.

    >>> session_holder("ada")
    'pm:sessions:dashboard:ada'
    """
    return f"pm:sessions:dashboard:{user_key(user)}"


def token_holder(key: str) -> str:
    """What `Endings` calls the holder of a token whose hash begins with the 32 characters of `key`.

    >>> token_holder("2a9f")
    'pm:token:api:2a9f'
    """
    return f"pm:token:api:{key}"


class Endings:
    """One subscription of the process, in a thread of its own; it asks nothing while nobody's rights end.

    >>> Endings(client).listen(streams.doubt)  # doctest: +SKIP
    """

    def __init__(self, client: Redis) -> None:
        self.client = client
        self._lock = threading.Lock()
        self._subscriber: Subscriber | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._left_at: float | None = None

    def listen(self, doubt: Doubt) -> None:
        """Tell `doubt` of endings from now on; call this in its event loop."""
        loop = asyncio.get_running_loop()
        with self._lock:
            self._left_at = None
            if self._subscriber and self._loop is loop:
                return
            self._close()
            self._subscriber, self._loop = Subscriber(self.client, [ENDED_CHANNEL]), loop
            task = (self._subscriber, loop, doubt)
            threading.Thread(target=self._hear, args=task, name="packmule-endings", daemon=True).start()

    def rest(self) -> None:
        """Stop in a while, unless `listen` is called again."""
        with self._lock:
            self._left_at = time.monotonic()

    def close(self) -> None:
        """Stop at once."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._subscriber:
            self._subscriber.close()
            self._subscriber = None

    def _hear(self, subscriber: Subscriber, loop: asyncio.AbstractEventLoop, doubt: Doubt) -> None:
        try:
            while self._is_wanted(subscriber, loop):
                message = subscriber.wait(LOOK_INTERVAL)
                if message is not None:
                    holder = None if message is MISSED else _holder(message.value)
                    loop.call_soon_threadsafe(doubt, holder)
        except RuntimeError:  # the loop has ended
            subscriber.close()
        except Exception as error:  # such as a missing permission
            logger.warning("Ended sessions are noticed late, because nobody reports them: %s", plain(error))
            subscriber.close()

    def _is_wanted(self, subscriber: Subscriber, loop: asyncio.AbstractEventLoop) -> bool:
        with self._lock:
            if self._subscriber is not subscriber:
                return False
            if loop.is_closed() or (self._left_at and time.monotonic() - self._left_at >= LINGER):
                self._close()
                return False
            return True


def _holder(value: object) -> str:
    """What the message of a script names: the index of a user's sessions, or the key of a token."""
    text = value if isinstance(value, str) else ""
    if text.startswith(token_holder("")):
        return text[: len(token_holder("")) + KEY_LENGTH]
    return text
