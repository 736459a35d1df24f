"""The kinds of connections: they leave a server that can't serve any more, and their errors are ours."""

from __future__ import annotations

import os
import socket
import struct
import threading
from typing import Any, NoReturn
from weakref import WeakSet

import redis
from redis.connection import (
    AbstractConnection,
    Connection,
    ConnectionPool,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.exceptions import MasterDownError, ReadOnlyError, ResponseError
from redis.retry import Retry
from redis.sentinel import SentinelManagedConnection
from redis.utils import SENTINEL

from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.errors import Unavailable

_FAILURES = (redis.ConnectionError, redis.TimeoutError)
_REPLICA = (ReadOnlyError, MasterDownError)
_REPLICA_IN_SCRIPT = "-READONLY"
"""In the error with which Redis before 7.0 ends a script on a replica."""


class Unreachable(Unavailable, redis.ConnectionError):
    """No usable server answers at the URL; the text names it without the password."""


class Unanswered(Unavailable, redis.TimeoutError):
    """The server gave no answer in time: whether it performed the command is unknown."""


class Replica(Unreachable):
    """The server is a read-only replica, as after a failover: the next attempt resolves its name again."""

    def __init__(self, server: str) -> None:
        super().__init__(f"{server} is a read-only replica: name its primary, or wait for the failover")


def raise_ours(error: redis.RedisError) -> NoReturn:
    """Raise redis-py's `ConnectionError` or `TimeoutError` as one of our tree."""
    if isinstance(error, Unavailable):
        raise error
    if isinstance(error, redis.TimeoutError):
        raise Unanswered(str(error)) from error
    raise Unreachable(str(error)) from error


class Retries(Retry):
    """redis-py's retries, around every connect and every command; the last error is one of our tree."""

    __hash__ = Retry.__hash__

    def call_with_retry(
        self, do: Any, fail: Any, is_retryable: Any = None, with_failure_count: bool = False
    ) -> Any:
        """Call until it succeeds or no try is left. Raises `Unreachable` and `Unanswered`."""
        try:
            return super().call_with_retry(do, fail, is_retryable, with_failure_count)
        except _FAILURES as error:
            raise_ours(error)


class _Serving(AbstractConnection):
    """What each kind of connection does beyond redis-py's: it leaves a server that can't serve.

    A replica's refusal closes the connection, so that the next attempt resolves the server's name again and
    finds the new primary.
    """

    def read_response(
        self,
        disable_decoding: bool = False,
        *,
        timeout: Any = SENTINEL,
        disconnect_on_error: bool = True,
        push_request: bool = False,
    ) -> Any:
        """The next reply. Raises `Replica` and `Unanswered`, and what redis-py does."""
        try:
            return super().read_response(
                disable_decoding,
                timeout=timeout,
                disconnect_on_error=disconnect_on_error,
                push_request=push_request,
            )
        except redis.ConnectionError as error:
            if isinstance(error.__context__, BlockingIOError):
                raise Unanswered(f"{self._name()} gave no answer in time") from error
            raise
        except ResponseError as error:
            if isinstance(error, _REPLICA) or _REPLICA_IN_SCRIPT in str(error):
                self.disconnect()  # type: ignore[no-untyped-call]
                raise Replica(self._name()) from None
            raise

    def _name(self) -> str:
        return str(self._host_error())  # type: ignore[no-untyped-call]


class _KernelTimed(_Serving):
    """A connection for whose answers the kernel waits no longer than `socket_timeout` seconds.

    Python's own timeouts cost a further system call for each command and each reply.
    """

    def __init__(self, *, socket_timeout: float | None = None, **options: Any) -> None:
        super().__init__(socket_timeout=None, **options)
        self.answer_timeout = socket_timeout

    def _connect(self) -> socket.socket:
        connected: socket.socket = super()._connect()  # type: ignore[no-untyped-call,safe-super]
        if self.answer_timeout is not None:
            span = struct.pack("ll", *divmod(int(self.answer_timeout * 1e6), 1_000_000))
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                connected.setsockopt(socket.SOL_SOCKET, option, span)
        return connected


class TcpConnection(_KernelTimed, Connection):
    """A connection to `redis://`."""


class TlsConnection(_Serving, SSLConnection):
    """A connection to `rediss://`, with Python's timeouts: those of the kernel would not end a handshake."""


class UnixConnection(_KernelTimed, UnixDomainSocketConnection):
    """A connection to `unix://`."""


class SentinelConnection(_KernelTimed, SentinelManagedConnection):  # type: ignore[misc]
    """A connection to the primary that the sentinels of `redis+sentinel://` name."""


class Pool(ConnectionPool):
    """redis-py's pool, except that a connection which is ready is taken and released without its statistics.

    They take longer than many a command. A child that was forked while another thread held a lock of the pool
    would wait for that for ever, so it gets new ones.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        _pools.add(self)

    def renew_locks(self) -> None:
        """Take new locks, in a process that was just forked."""
        self._lock, self._fork_lock = threading.RLock(), threading.RLock()

    def get_connection(self, command_name: Any = None, *keys: Any, **options: Any) -> Any:
        """A connection that is ready for a command."""
        if self._available_connections and self.pid == os.getpid():
            try:
                connection = self._available_connections.pop()
            except IndexError:  # another thread was faster
                return super().get_connection()
            if self._is_ready(connection):
                self._in_use_connections.add(connection)
                return connection
            self._available_connections.append(connection)
        return super().get_connection()

    def release(self, connection: Any) -> None:
        """Take a connection back."""
        is_ours = connection.pid == self.pid == os.getpid() and connection in self._in_use_connections
        if not is_ours or connection.should_reconnect():
            super().release(connection)
            return
        self._in_use_connections.discard(connection)
        self._available_connections.append(connection)

    def disconnect(self, inuse_connections: bool = True) -> None:
        """Close the connections, which other threads may take and release meanwhile."""
        self._checkpid()
        for each in [*self._available_connections, *(self._in_use_connections if inuse_connections else ())]:
            each.disconnect()

    @staticmethod
    def _is_ready(connection: Any) -> bool:
        """Whether it is connected, and nothing is left to read from it."""
        try:
            return connection._sock is not None and not connection.can_read()
        except (redis.ConnectionError, redis.TimeoutError, OSError):
            return False


_pools: WeakSet[Pool] = WeakSet()


def _renew_locks() -> None:
    for each in list(_pools):
        each.renew_locks()


os.register_at_fork(after_in_child=_renew_locks)


class EmbeddedConnection(UnixConnection):
    """A connection to the embedded server; connecting starts the server if it isn't running."""

    def __init__(self, *, server: EmbeddedServer, **options: Any) -> None:
        super().__init__(path=str(server.socket_path), **options)
        self.server = server

    def _connect(self) -> socket.socket:
        self.server.ensure()
        return super()._connect()
