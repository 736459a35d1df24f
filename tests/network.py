"""A network in front of a server: it delays, falls silent, or leads new connections to another server."""

from __future__ import annotations

import os
import queue
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from redis import Redis

from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.tests.command_line import free_port


class Network:
    """Listens on a loopback port and forwards bytes to the socket `target`, `delay` seconds each way.

    `target` may change, as the address behind a name does at a failover: connections that are open stay where
    they are. A connection to a server in `silent` is accepted, and nothing is heard from it ever after.
    """

    def __init__(self, target: Path, delay: float = 0.0) -> None:
        self.target = target
        self.delay = delay
        self.silent: set[Path] = set()
        self._sockets = [socket.create_server(("127.0.0.1", 0), backlog=128)]
        self.url = f"redis://127.0.0.1:{self._sockets[0].getsockname()[1]}"
        self._threads: list[threading.Thread] = []
        self._run(self._accept)

    def close(self) -> None:
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for each in self._sockets:
            each.close()

    def _run(self, work: Callable[..., None], *args: object) -> None:
        self._threads.append(threading.Thread(target=work, args=args, daemon=True))
        self._threads[-1].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._sockets[0].accept()
                near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                far, target = socket.socket(socket.AF_UNIX), self.target
                self._sockets += (near, far)
                try:
                    far.connect(str(target))
                except OSError:
                    near.shutdown(socket.SHUT_RDWR)
                    continue
                for source, sink in ((near, far), (far, near)):
                    late: queue.Queue[tuple[float, bytes]] = queue.Queue()
                    self._run(self._read, source, late)
                    self._run(self._write, late, sink, target)

    def _read(self, source: socket.socket, late: queue.Queue[tuple[float, bytes]]) -> None:
        data = b"x"
        while data:
            try:
                data = source.recv(65_536)
            except OSError:
                data = b""
            late.put((time.monotonic() + self.delay, data))

    def _write(self, late: queue.Queue[tuple[float, bytes]], sink: socket.socket, target: Path) -> None:
        with suppress(OSError):
            while True:
                due, data = late.get()
                time.sleep(max(0.0, due - time.monotonic()))
                if target in self.silent:
                    if not data:
                        return
                elif data:
                    sink.sendall(data)
                else:
                    sink.shutdown(socket.SHUT_WR)
                    return


@contextmanager
def network(server: EmbeddedServer, delay: float = 0.0) -> Iterator[Network]:
    """A network in front of `server`."""
    made = Network(server.socket_path, delay)
    try:
        yield made
    finally:
        made.close()


class Pair:
    """A primary and its replica, with one name that leads to the primary."""

    def __init__(self, first: EmbeddedServer, second: EmbeddedServer, name: Network) -> None:
        self.first, self.second, self.name = first, second, name

    def demote(self) -> None:
        """Swap the roles, as a managed service does: the old primary lives on as a replica."""
        promote(self.second)
        replicate(self.second, self.first)
        self.name.target = self.second.socket_path

    def silence(self) -> None:
        """Let the old primary's host go without a word."""
        self.name.silent.add(self.first.socket_path)
        promote(self.second)
        self.name.target = self.second.socket_path


def replicate(primary: EmbeddedServer, replica: EmbeddedServer, through: Network | None = None) -> None:
    """Make `replica` a replica of `primary`, in step with it, `through` a network if there is one."""
    with Redis.from_url(primary.url) as first, Redis.from_url(replica.url) as second:
        port = first.config_get("port")["port"]
        if port == "0":
            port = free_port()
            first.config_set("port", port)
        second.config_set("repl-diskless-sync-delay", 0)
        first.config_set("repl-diskless-sync-delay", 0)
        second.replicaof("127.0.0.1", through.url.rpartition(":")[2] if through else port)
        deadline = time.monotonic() + 60
        while second.info("replication").get("master_link_status") != "up":
            assert time.monotonic() < deadline, "the replica never caught up"
            time.sleep(0.02)


def promote(replica: EmbeddedServer) -> None:
    """Make `replica` a primary."""
    with Redis.from_url(replica.url) as client:
        client.replicaof("NO", "ONE")


@contextmanager
def server_frozen(server: EmbeddedServer) -> Iterator[None]:
    """Stop a server's process, which keeps its connections and answers nothing, until the block ends."""
    pid = server.pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
