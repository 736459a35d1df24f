"""Lua scripts in files: called by hash, and sent whole only if the server doesn't know them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from threading import Event
from typing import Any, TypeVar

from redis import Redis
from redis.exceptions import NoScriptError, ReadOnlyError, ResponseError

from packmule.coordination.redis import library

T = TypeVar("T")

called_off: ContextVar[Event | None] = ContextVar("called_off", default=None)
"""Once set, the scripts of this context raise `CancelledError` instead of sending anything more."""


class Script:
    """The script `packmule/<package>/lua/<name>.lua` with the libraries that it needs, in one round trip.

    >>> claim = Script("worker.process", "finish_and_claim")
    >>> claim(client, keys=["a"], args=[1])  # doctest: +SKIP

    Two threads may assemble it at once. A lock would be held for ever in a process that was forked meanwhile.
    """

    def __init__(self, package: str, name: str) -> None:
        self._file = (package, name)
        self._source = self._sha = ""
        library.read(package, f"{name}.lua")

    @property
    def source(self) -> str:
        """The assembled text."""
        if not self._source:
            self._source = library.assembled(*self._file)
        return self._source

    @property
    def sha(self) -> str:
        """The hash by which the server identifies the script; it protects nothing."""
        if not self._sha:
            self._sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()
        return self._sha

    def __call__(self, client: Redis, keys: Sequence[str | bytes] = (), args: Sequence[Any] = ()) -> Any:
        """Run the script; returns its reply. Raises redis-py's errors."""
        command = self.command(keys, args)
        try:
            return _exchange(client, _reply, command)
        except NoScriptError:
            return _exchange(client, _reply, ("EVAL", self.source, *command[2:]))

    def confirmed(
        self, client: Redis, keys: Sequence[str], args: Sequence[Any], behind: Sequence[tuple[Any, ...]]
    ) -> tuple[Any, list[Any]]:
        """Run the script and the commands `behind` it on one connection, in one round trip.

        Returns the script's reply, which may be redis-py's error, and those of the commands.
        """
        for first in (self.command(keys, args), ("EVAL", self.source, len(keys), *keys, *args)):
            reply, *others = _exchange(client, _replies, (first, *behind))
            if not isinstance(reply, NoScriptError):
                break
        return reply, others

    def each(self, client: Redis, calls: Sequence[tuple[Sequence[str | bytes], Sequence[Any]]]) -> list[Any]:
        """Run the script for each of `calls`, given as keys and arguments, in one round trip.

        Returns the replies in order; a call that failed has redis-py's error in its place.
        """
        replies = self._all(client, calls)
        lacking = [number for number, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if lacking:
            client.script_load(self.source)
            again = self._all(client, [calls[number] for number in lacking])
            for number, reply in zip(lacking, again, strict=True):
                replies[number] = reply
        return replies

    def _all(self, client: Redis, calls: Sequence[tuple[Sequence[str | bytes], Sequence[Any]]]) -> list[Any]:
        opened: Any = client.pipeline(transaction=False)
        with opened as pipeline:
            for keys, args in calls:
                pipeline.execute_command(*self.command(keys, args))
            return list(pipeline.execute(raise_on_error=False))

    def command(self, keys: Sequence[str | bytes], args: Sequence[Any]) -> tuple[Any, ...]:
        """The command that runs the script; it fails with `NoScriptError` if the server lacks it."""
        return ("EVALSHA", self._sha or self.sha, len(keys), *keys, *args)


def _reply(connection: Any, command: Sequence[Any]) -> Any:
    connection.send_packed_command(connection.pack_command(*command))
    return connection.read_response()


def _replies(connection: Any, commands: Sequence[Sequence[Any]]) -> list[Any]:
    """The replies to all `commands`; one that was refused has redis-py's error in its place."""
    connection.send_packed_command(connection.pack_commands(commands))
    replies: list[Any] = []
    for _ in commands:
        try:
            replies.append(connection.read_response())
        except ResponseError as error:
            replies.append(error)
    return replies


def _exchange(client: Redis, ask: Callable[[Any, Any], T], asked: Sequence[Any]) -> T:
    """Send what is `asked` and return what came back; repeat it if the connection is lost.

    It uses the connection directly, because the client's own path costs more than the server's answer.
    """
    pool = client.connection_pool
    connection: Any = pool.get_connection()

    def exchange() -> T:
        if (off := called_off.get()) is not None:
            connection.connect()  # first, since it may take long
            if off.is_set():
                from asyncio import CancelledError  # noqa: PLC0415  slow to load

                raise CancelledError
        return ask(connection, asked)

    try:
        found: T = connection.retry.call_with_retry(exchange, lambda error: connection.disconnect())
    except ReadOnlyError:
        connection.disconnect()  # of a client that isn't ours: the next call resolves the server's name again
        raise
    except ResponseError:
        raise
    except BaseException:
        connection.disconnect()  # a signal's exception may have come between a command and its reply
        raise
    finally:
        pool.release(connection)
    return found
