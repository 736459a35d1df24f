"""The cache's own connections: an answer takes a second at most, and a failure is followed by a rest."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import hiredis
import redis
from redis.exceptions import NoScriptError

from packmule.coordination.redis.connection import once_within
from packmule.coordination.redis.scripts import Script
from packmule.errors import Unavailable

TIMEOUT = 1.0
"""Seconds that connecting and answering may take each; a cache that is slower is none."""

REST = 1.0
"""Seconds after a failure in which the server is not asked, so that its absence costs its users little."""


class CacheUnavailable(Unavailable, redis.ConnectionError):
    """The cache's server can't be reached, answered too late, or failed less than a second ago."""


class Link:
    """Connections to the server of `client`, as many as threads use at once, kept open.

    Usable from any thread and after a fork. What is sent may be sent twice: on a connection that had been
    lost unseen, and on the new one.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._pool: Any = client.connection_pool
        self._idle: list[Any] = []
        self._process = os.getpid()
        self._rests_until = 0.0
        self._fault = ""

    def ask(self, *commands: tuple[Any, ...]) -> list[Any]:
        """The replies to `commands`, as bytes, sent together in one trip.

        Raises `CacheUnavailable`, or the first `redis.ResponseError` among them.
        """
        if time.monotonic() < self._rests_until:
            raise CacheUnavailable(self._fault)
        try:
            replies = self._asked(commands)
        except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
            self._fault = " ".join(str(error).split())
            self._rests_until = time.monotonic() + REST
            raise CacheUnavailable(self._fault) from None
        for reply in replies:
            if isinstance(reply, redis.ResponseError):
                raise reply
        return replies

    def run(self, script: Script, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """The reply of a script, in one trip where the server knows it. Raises as `ask` does."""
        command = script.command(keys, args)
        try:
            return self.ask(command)[0]
        except NoScriptError:
            return self.ask(("EVAL", script.source, *command[2:]))[0]

    def connection(self, timeout: float) -> Any:
        """A new connection to this server, not yet connected."""
        options = {**self._pool.connection_kwargs, **once_within(timeout)}
        server = options.pop("server", None)
        if server is None:
            return self._pool.connection_class(**options)
        # An embedded server is not started from here: it would inherit the limits of an isolated job.
        plain: Any = redis.UnixDomainSocketConnection
        return plain(path=str(server.socket_path), **options)

    def close(self) -> None:
        """Close the connections; the next question makes a new one."""
        while self._idle:
            # In a forked child this closes the copy and leaves the parent's connection alone.
            self._idle.pop().disconnect()
        self._process = os.getpid()

    def _asked(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        if self._process != os.getpid():
            self.close()
        try:
            connection = self._idle.pop()
        except IndexError:
            return self._exchange(self.connection(TIMEOUT), commands)
        try:
            return self._exchange(connection, commands)
        except redis.ConnectionError:
            return self._exchange(self.connection(TIMEOUT), commands)

    def _exchange(self, connection: Any, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        try:
            packed = b"".join(map(hiredis.pack_command, commands))
            connection.send_packed_command((packed,), check_health=False)
            replies = [_reply(connection) for _ in commands]
        except BaseException:
            connection.disconnect()  # a signal's exception may have come between a command and its reply
            raise
        self._idle.append(connection)
        return replies


def _reply(connection: Any) -> Any:
    try:
        return connection.read_response(disable_decoding=True)
    except redis.ResponseError as error:
        return error
