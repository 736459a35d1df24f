"""The cache's own connections: a reply takes a second at most, and no call is made right after a failure."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import redis
from redis.exceptions import NoScriptError

from packmule.coordination.redis.command_packer import pack
from packmule.coordination.redis.connection import once_within
from packmule.coordination.redis.scripts import Script
from packmule.errors import Unavailable

TIMEOUT = 1.0
"""Seconds that connecting and answering may each take; a slower cache would be of no use."""

REST = 1.0
"""Seconds after a failure in which the server isn't called, so that an outage costs callers little time."""


class CacheUnavailable(Unavailable, redis.ConnectionError):
    """The cache's server can't be reached, answered too late, or failed less than a second ago."""


class Link:
    """Connections to the server of `client`: one for each thread that calls at the same time, kept open.

    Safe in threads and after a fork. A command may be sent twice: on a connection that turns out to be lost,
    and on a new one.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._pool: Any = client.connection_pool
        self._idle: list[Any] = []
        self._process = os.getpid()
        self._rests_until = 0.0
        self._fault = ""

    def call(self, *commands: tuple[Any, ...]) -> list[Any]:
        """The replies to `commands`, as bytes, in one round trip.

        Raises `CacheUnavailable`, or the first `redis.ResponseError` among the replies.
        """
        if time.monotonic() < self._rests_until:
            raise CacheUnavailable(self._fault)
        try:
            replies = self._sent(commands)
        except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
            self._fault = " ".join(str(error).split())
            self._rests_until = time.monotonic() + REST
            raise CacheUnavailable(self._fault) from None
        for reply in replies:
            if isinstance(reply, redis.ResponseError):
                raise reply
        return replies

    def run(self, script: Script, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """The reply of a script, in one round trip if the server knows it. Raises what `call` does."""
        command = script.command(keys, args)
        try:
            return self.call(command)[0]
        except NoScriptError:
            return self.call(("EVAL", script.source, *command[2:]))[0]

    def connection(self, timeout: float) -> Any:
        """A new, unconnected connection to this server."""
        options = {**self._pool.connection_kwargs, **once_within(timeout)}
        server = options.pop("server", None)
        if server is None:
            return self._pool.connection_class(**options)
        # An embedded server is not started from here: it would inherit the limits of an isolated job.
        plain: Any = redis.UnixDomainSocketConnection
        return plain(path=str(server.socket_path), **options)

    def close(self) -> None:
        """Close the connections; the next call opens a new one."""
        while self._idle:
            # In a forked child this closes the copy, not the parent's connection.
            self._idle.pop().disconnect()
        self._process = os.getpid()

    def _sent(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
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
            packed = b"".join(pack(*command) for command in commands)
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
