"""Lock nodes: independent servers, asked all at once and waited for no longer than a majority takes."""

from __future__ import annotations

import os
import select
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import hiredis
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from coordination.scripts import Script
from coordination.server import ServerFailed

REST = 20
"""After a failed attempt to connect the next is due in this many times its length, so that a node that is
gone takes at most a twentieth of the time."""

_ABSENT = object()


class SameServer(ValueError):
    """Two of the lock nodes are one server, which would have two votes."""


@dataclass(frozen=True)
class Votes:
    """How many nodes said yes, how many said no, what they said, and what is wrong with the others."""

    yes: int
    no: int
    replies: tuple[int, ...]
    faults: dict[str, str]


class Node:
    """One server: commands go out and answers come in, in order, without ever waiting for them.

    A command that has had no answer yet stays on its way, and what is sent later is performed after it: the
    release that follows an attempt undoes it even if the server wakes up in an hour.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._pool: Any = client.connection_pool
        options = self._pool.connection_kwargs
        self._local = "server" in options or "path" in options
        self.name = _name(options, self._pool)
        self.fault = ""
        self.run_id = b""
        self.votes_at = 0.0
        self._dial_at = 0.0
        self._connection: Any = None
        self.socket: Any = None

    def dial(self, timeout: float, longest_ttl: float) -> None:
        """Connect if that is due; a server that may have forgotten locks votes only after the longest TTL."""
        begun = time.monotonic()
        if self.socket is not None or begun < self._dial_at:
            return
        connection = self.connection(timeout)
        try:
            connection.connect()
            connection.send_packed_command(
                connection.pack_commands([("INFO",), ("CONFIG", "GET", "append*")]), check_health=False
            )
            info = dict(
                line.split(b":", 1) for line in connection.read_response(True).split() if b":" in line
            )
            durable = self._is_durable(connection)
            uptime = float(info[b"uptime_in_seconds"])
            self.run_id = info[b"run_id"]
        except (redis.RedisError, OSError, ServerFailed, KeyError) as error:
            connection.disconnect()
            self.fault = " ".join(str(error).split())
            now = time.monotonic()
            self._dial_at = now + REST * (now - begun)
            return
        now = time.monotonic()
        self.votes_at = now if durable else now + max(0.0, longest_ttl - uptime)
        self.fault = ""
        self._connection, self.socket = connection, connection._sock
        self.socket.setblocking(False)
        self._reader = hiredis.Reader()
        self._unanswered = 0

    def connection(self, timeout: float) -> Any:
        """A new connection to this server, not yet connected."""
        changes = {
            "protocol": 2,
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
            "retry": Retry(NoBackoff(), 0),
        }
        return self._pool.connection_class(**{**self._pool.connection_kwargs, **changes})

    def send(self, command: bytes) -> bool:
        """Send a command; whether the connection took it."""
        try:
            taken = self.socket.send(command)
        except (BlockingIOError, ssl.SSLWantWriteError):
            taken = 0
        except OSError as error:
            return self.lose(str(error))
        self._unanswered += 1
        return taken == len(command) or self.lose("it takes no more commands")

    def receive(self) -> Any:
        """The answer to the last command, or `_ABSENT`; answers to earlier ones came too late and are dropped."""
        last: Any = _ABSENT
        try:
            while data := self.socket.recv(65_536):
                self._reader.feed(data)
                if not (isinstance(self.socket, ssl.SSLSocket) and self.socket.pending()):
                    break
            else:
                self.lose("it closed the connection")
                return _ABSENT
            while (reply := self._reader.gets()) is not False:
                self._unanswered -= 1
                if self._unanswered == 0:
                    last = reply
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
        except (OSError, hiredis.HiredisError) as error:
            self.lose(str(error))
        return last

    def lose(self, fault: str) -> bool:
        """Give the connection up, because of `fault`; always False."""
        self.close()
        self.fault = fault
        return False

    def close(self) -> None:
        """Close the connection; the next question makes a new one."""
        self._dial_at = 0.0
        if self._connection is not None:
            # In a forked child this closes the copy and leaves the parent's connection alone.
            self._connection.disconnect()
            self._connection = self.socket = None

    def _is_durable(self, connection: Any) -> bool:
        """Whether no restart makes this server forget a lock that somebody still believes to hold."""
        try:
            words: list[bytes] = connection.read_response(True)
        except redis.ResponseError:
            return False  # managed services forbid the question
        options = dict(zip(words[::2], words[1::2], strict=True))
        # What is not yet synced is lost when the machine goes down, and with it all who use its local socket.
        return options.get(b"appendonly") == b"yes" and (
            self._local or options.get(b"appendfsync") == b"always"
        )


class Nodes:
    """All nodes of a lock; any number of threads may ask, one after another, and forked children as well."""

    def __init__(self, clients: Sequence[redis.Redis], longest_ttl: float, timeout: float) -> None:
        self.nodes = [Node(client) for client in clients]
        self.quorum = len(self.nodes) // 2 + 1
        self._longest_ttl = longest_ttl
        self._timeout = timeout
        self.reset()
        _everywhere.add(self)

    def reset(self) -> None:
        """Begin anew, as a forked child must: connections and locks of other threads are the parent's."""
        self._mutex = threading.Lock()
        self.close()

    def close(self) -> None:
        """Close all connections."""
        for node in self.nodes:
            node.close()

    def ask(
        self,
        script: Script,
        keys: Sequence[str],
        args: Sequence[str | int],
        patience: float,
        *,
        voters: bool = False,
        agrees: Callable[[int], bool] = bool,
    ) -> Votes:
        """Run a script on all nodes, or `voters` alone, until a majority `agrees` or none can any more.

        It is told as its last argument whether the node votes. Takes at most `patience` seconds, and the
        timeout for each node to which a connection must be made.
        """
        with self._mutex:
            try:
                self._dial(min(self._timeout, patience))
                return self._ask(script, (len(keys), *keys, *args), patience, voters, agrees)
            except BaseException:
                self.close()  # it is unknown how far the exchange went
                raise

    def faults(self) -> dict[str, str]:
        """Which nodes have no vote at present, and why."""
        with self._mutex:
            self._dial(self._timeout)
            return self._faults(time.monotonic())

    def _dial(self, timeout: float) -> None:
        for node in self.nodes:
            if node.socket is None:
                node.dial(timeout, self._longest_ttl)
                for other in self.nodes:
                    if other is not node and node.run_id and other.run_id == node.run_id:
                        raise SameServer(f"the lock nodes {other.name} and {node.name} are one server")

    def _ask(
        self,
        script: Script,
        call: tuple[str | int, ...],
        patience: float,
        voters: bool,
        agrees: Callable[[int], bool],
    ) -> Votes:
        now = time.monotonic()
        poller = select.poll()
        waiting: dict[int, Node] = {}
        commands: dict[bool, bytes] = {}
        for node in self.nodes:
            votes = node.votes_at <= now
            if node.socket is None or (voters and not votes):
                continue
            if votes not in commands:
                commands[votes] = hiredis.pack_command(("EVALSHA", script.sha, *call, int(votes)))
            if node.send(commands[votes]):
                waiting[node.socket.fileno()] = node
                poller.register(node.socket, select.POLLIN)
        deadline = now + patience
        replies: list[int] = []
        yes = 0
        silent = ""
        while waiting and yes < self.quorum <= yes + len(waiting):
            left = deadline - time.monotonic()
            if left <= 0:
                silent = f"no answer within {patience:.3g} s"
                break
            for descriptor, _ in poller.poll(left * 1000):
                node = waiting[descriptor]
                reply = node.receive()
                if reply is _ABSENT and node.socket is not None:
                    continue
                if isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOSCRIPT"):
                    whole = ("EVAL", script.source, *call, int(node.votes_at <= now))
                    if node.send(hiredis.pack_command(whole)):
                        continue
                del waiting[descriptor]
                poller.unregister(descriptor)
                if isinstance(reply, int):
                    node.fault = ""
                    replies.append(reply)
                    yes += agrees(reply)
                elif reply is not _ABSENT:
                    node.fault = f"it says {reply}"
        for node in waiting.values():
            node.fault = silent
        return Votes(yes, len(replies) - yes, tuple(replies), self._faults(now))

    def _faults(self, now: float) -> dict[str, str]:
        return {
            node.name: node.fault
            or f"it may have forgotten locks when it started, and votes in {node.votes_at - now:.0f} s"
            for node in self.nodes
            if node.fault or node.votes_at > now
        }


def _name(options: dict[str, Any], pool: Any) -> str:
    if "server" in options:
        return str(options["server"].socket_path)
    if "path" in options:
        return str(options["path"])
    if "host" in options:
        return f"{options['host']}:{options.get('port', 6379)}"
    return str(getattr(pool, "service_name", "node"))


_everywhere: weakref.WeakSet[Nodes] = weakref.WeakSet()


def _begin_anew() -> None:
    for nodes in list(_everywhere):
        nodes.reset()


os.register_at_fork(after_in_child=_begin_anew)
