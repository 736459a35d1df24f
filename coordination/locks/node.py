"""A lock node: one server, with commands sent and replies received without ever blocking."""

from __future__ import annotations

import ssl
import time
from typing import Any

import hiredis
import redis

from packmule.coordination.redis.connection import once_within
from packmule.coordination.redis.embedded_server import ServerFailed

REST = 20
"""After a failed attempt to connect, the next is due in this many times its duration, so that a dead node
costs a twentieth of the time."""

LONGEST_REST = 2.0
"""Seconds after which the next attempt is due in any case."""

LONGEST_SILENCE = 3.0
"""Seconds without a reply after which the connection is closed: the server's host may be gone for good."""

LONGEST_ROUND_TRIP = 0.5
"""Seconds; a reply that came later than that is not counted on again."""

ABSENT = object()
"""Instead of a reply: none has arrived yet, or the connection is lost."""


class Node:
    """One server and our connection to it.

    A command without a reply stays on its way, and later commands are performed after it. So the release that
    follows a failed attempt undoes it even if the server wakes up an hour later.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._pool: Any = client.connection_pool
        options = self._pool.connection_kwargs
        self._local = "server" in options or "path" in options
        self.name = _name(options, self._pool)
        self.fault = ""
        self.run_id = b""
        self.votes_at = 0.0
        self.round_trip = 0.0
        """Seconds from the last answered command to its reply."""
        self._dial_at = 0.0
        self._sent_at = self._silent_since = 0.0
        self._connection: Any = None
        self.socket: Any = None

    @property
    def is_due(self) -> bool:
        """Whether it is time to connect."""
        return self.socket is None and time.monotonic() >= self._dial_at

    def dial(self, timeout: float, longest_ttl: float) -> bool:
        """Connect; returns False if only the time did not suffice.

        A server that may have forgotten locks votes only after the longest TTL.
        """
        begun = time.monotonic()
        connection = self.connection(timeout)
        try:
            connection.connect()
            asked_at = time.monotonic()
            connection.send_packed_command(
                connection.pack_commands([("INFO",), ("CONFIG", "GET", "append*")]), check_health=False
            )
            info = dict(
                line.split(b":", 1) for line in connection.read_response(True).split() if b":" in line
            )
            self.round_trip = time.monotonic() - asked_at
            durable = self._is_durable(connection)
            uptime = float(info[b"uptime_in_seconds"]) - 1  # it may be almost a second too long
            _refuse_unfit(info)
            is_known, self.run_id = self.run_id == info[b"run_id"], info[b"run_id"]
        except (redis.RedisError, OSError, ServerFailed, KeyError) as error:
            connection.disconnect()
            self.fault = " ".join(str(error).split())
            now = time.monotonic()
            self._dial_at = now + min(LONGEST_REST, REST * (now - begun))
            return not isinstance(error, redis.TimeoutError)
        now = time.monotonic()
        # A clock that was set back makes the uptime too small, or negative: the longest TTL is always enough.
        votes_at = now if durable else now + min(max(0.0, longest_ttl - uptime), longest_ttl)
        self.votes_at = min(self.votes_at, votes_at) if is_known else votes_at
        self.fault = ""
        self._connection, self.socket = connection, connection._sock
        self.socket.setblocking(False)
        self._reader = hiredis.Reader()
        self._unanswered = 0
        return True

    def connection(self, timeout: float) -> Any:
        """A new, unconnected connection to this server."""
        return self._pool.connection_class(**{**self._pool.connection_kwargs, **once_within(timeout)})

    def send(self, command: bytes) -> bool:
        """Send a command; returns whether the connection accepted it."""
        try:
            taken = self.socket.send(command)
        except (BlockingIOError, ssl.SSLWantWriteError):
            taken = 0
        except OSError as error:
            return self.lose(str(error))
        self._sent_at = time.monotonic()
        if not self._unanswered:
            self._silent_since = self._sent_at
        self._unanswered += 1
        return taken == len(command) or self.lose("it accepts no more commands")

    def receive(self) -> Any:
        """The reply to the last command, or `ABSENT`. Replies to earlier commands are dropped."""
        last: Any = ABSENT
        try:
            while data := self.socket.recv(65_536):
                self._reader.feed(data)
                if not (isinstance(self.socket, ssl.SSLSocket) and self.socket.pending()):
                    break
            else:
                self.lose("it closed the connection")
                return ABSENT
            while (reply := self._reader.gets()) is not False:
                self._unanswered -= 1
                self._silent_since = time.monotonic()
                if self._unanswered == 0:
                    last = reply
                    self.round_trip = min(self._silent_since - self._sent_at, LONGEST_ROUND_TRIP)
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
        except (OSError, hiredis.HiredisError) as error:
            self.lose(str(error))
        return last

    @property
    def votes(self) -> bool:
        """Whether it votes: it can't have forgotten a lock that is still held."""
        return self.votes_at <= time.monotonic()

    def leave_if_silent(self) -> None:
        """Close a connection that has given no reply for long; the next one resolves the name again."""
        if (
            self.socket is not None
            and self._unanswered
            and time.monotonic() - self._silent_since > LONGEST_SILENCE
        ):
            self.lose(f"no answer for {LONGEST_SILENCE:g} s")

    def lose(self, fault: str) -> bool:
        """Close the connection because of `fault`; always False."""
        self.close()
        self.fault = fault
        return False

    def close(self) -> None:
        """Close the connection; the next command opens a new one."""
        self._dial_at = 0.0
        if self._connection is not None:
            # In a forked child this closes the copy, not the parent's connection.
            self._connection.disconnect()
            self._connection = self.socket = None

    def _is_durable(self, connection: Any) -> bool:
        """Whether no restart makes this server forget a lock whose holder relies on it."""
        try:
            words: list[bytes] = connection.read_response(True)
        except redis.ResponseError:
            return False  # managed services forbid CONFIG
        options = dict(zip(words[::2], words[1::2], strict=True))
        # If the machine goes down, unsynced writes are lost, and so are all users of its local socket.
        return options.get(b"appendonly") == b"yes" and (
            self._local or options.get(b"appendfsync") == b"always"
        )


def _refuse_unfit(info: dict[bytes, bytes]) -> None:
    if info.get(b"role") == b"slave":
        raise redis.RedisError("it is a read-only replica")
    if info.get(b"cluster_enabled") == b"1":
        raise redis.RedisError("it runs in Redis Cluster mode, where a lock and its counter lie on two nodes")
    policy = info.get(b"maxmemory_policy", b"noeviction").decode()
    if policy != "noeviction" and info.get(b"maxmemory") != b"0":
        raise redis.RedisError(f"it deletes locks when its memory is full (maxmemory-policy {policy})")


def _name(options: dict[str, Any], pool: Any) -> str:
    if "server" in options:
        return str(options["server"].socket_path)
    if "path" in options:
        return str(options["path"])
    if "host" in options:
        return f"{options['host']}:{options.get('port', 6379)}"
    return str(getattr(pool, "service_name", "node"))
