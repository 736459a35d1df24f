"""The served dashboard: slow, many and rude clients, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis import Redis
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.dashboard import serving
from packmule.dashboard.guarding import bounds, streams
from packmule.dashboard.guarding.rules import Rules
from packmule.dashboard.serving import Connections, Server
from packmule.dashboard.users.store import Users
from packmule.dashboard.users.user import User
from packmule.dashboard.viewer import Role
from packmule.tests.command_line import DEADLINE, CommandLine, environment_in, free_port, until
from packmule.tests.dashboard.asking import always, guarded

GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def stream(request: Request) -> Response:
    async def events() -> AsyncIterator[bytes]:
        yield b"data: begun\n\n"
        await asyncio.sleep(10 * DEADLINE)

    return StreamingResponse(events(), media_type="text/event-stream")


def endless(request: Request) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65536
            await asyncio.sleep(0)

    return StreamingResponse(parts())


class Site:
    """A site that is served in a thread, and connections to it."""

    def __init__(self, client: Redis) -> None:
        routes = (Route("/stream", stream), Route("/endless", endless))
        self.server = Server(guarded(client, *routes, identify=always()))
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        self.thread = threading.Thread(target=self.server.run, args=([self.listening],), daemon=True)

    def connect(self) -> socket.socket:
        connected = socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE)
        connected.settimeout(DEADLINE)
        return connected

    def ask(self, request: bytes = GET) -> bytes:
        """The whole answer on a connection of its own."""
        with self.connect() as connected:
            connected.sendall(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
            return _all_of(connected)


def _all_of(connected: socket.socket) -> bytes:
    parts = b""
    with contextlib.suppress(ConnectionError):
        while part := connected.recv(65536):
            parts += part
    return parts


@pytest.fixture
def site(client: Redis, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(serving, "HEAD_TIMEOUT", DEADLINE)
    found = Site(client)
    found.thread.start()
    until(lambda: found.server.started, "the server")
    yield found
    found.server.should_exit = True
    found.thread.join(DEADLINE)
    found.listening.close()
    assert not found.thread.is_alive()


@pytest.mark.parametrize("begin", [b"", b"GET / HTTP/1.1\r\nHost: loc"])
def test_a_head_that_does_not_come_in_ends_its_connection(site, monkeypatch, begin):
    with monkeypatch.context() as patched:
        patched.setattr(serving, "HEAD_TIMEOUT", 0.3)
        with site.connect() as slow:
            slow.sendall(begin)
            assert _all_of(slow) == b""
        until(lambda: not site.server.admission.open, "the connection's end")
    assert b"200 OK" in site.ask()


def test_a_second_head_that_does_not_come_in_ends_its_connection(site, monkeypatch):
    with site.connect() as slow:
        until(lambda: site.server.admission.open, "the connection")
        monkeypatch.setattr(serving, "HEAD_TIMEOUT", 0.3)
        slow.sendall(GET + b"GET /health HT")
        assert _all_of(slow).count(b"HTTP/1.1 ") == 1
    until(lambda: not site.server.admission.open, "the connection's end")


def test_a_head_that_trickles_ends_its_connection(site, monkeypatch):
    monkeypatch.setattr(serving, "HEAD_TIMEOUT", 0.3)
    deadline = time.monotonic() + DEADLINE
    with site.connect() as slow, contextlib.suppress(ConnectionError):
        slow.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
        while time.monotonic() < deadline:
            slow.sendall(b"X-A: b\r\n")
            slow.settimeout(0.05)
            with contextlib.suppress(TimeoutError):
                assert slow.recv(100) == b""
                break
        assert time.monotonic() < deadline, "it went on"


def test_a_client_that_does_not_read_is_left(site, monkeypatch):
    monkeypatch.setattr(serving, "SEND_TIMEOUT", 0.3)
    with site.connect() as deaf:
        deaf.sendall(GET.replace(b"/health", b"/endless"))
        assert deaf.recv(1, socket.MSG_PEEK)
        until(lambda: site.server.site.running == 0, "its end")
    until(lambda: not site.server.admission.open, "the connection's end")


def test_more_connections_than_the_bound_are_refused_and_others_go_on(site):
    site.server.admission.most = 20
    kept = [site.connect() for _ in range(20)]
    until(lambda: site.server.admission.open.total() == 20, "the connections")
    for _ in range(100):
        with site.connect() as refused:
            assert _all_of(refused).startswith(b"HTTP/1.1 503 ")
    kept[0].sendall(GET)
    assert b"200 OK" in kept[0].recv(1000)
    for each in kept:
        each.close()
    until(lambda: not site.server.admission.open, "the connections' ends")
    assert b"200 OK" in site.ask()


def test_one_address_takes_only_its_share_unless_it_is_a_proxy(client):
    site = guarded(client, rules=Rules(proxies=("10.0.0.0/8",)))
    admission = Connections(site, most=5000)
    assert sum(admission.admit("192.0.2.7") for _ in range(2000)) == serving.MOST_OF_AN_ADDRESS
    assert sum(admission.admit("10.0.0.5") for _ in range(2000)) == 2000
    assert sum(admission.admit("127.0.0.1") for _ in range(3000)) == 2000
    assert not admission.admit("192.0.2.8")
    for _ in range(10):
        admission.leave("127.0.0.1")
    assert admission.admit("192.0.2.8")


def test_thousands_of_streams_are_refused_past_the_bound(site, monkeypatch):
    """The bound is smaller here than in earnest, to spare the machine."""
    monkeypatch.setattr(streams, "MOST", 50)
    monkeypatch.setattr(streams, "MOST_EACH", 50)
    request = GET.replace(b"/health", b"/stream")
    kept = []
    for _ in range(50):
        connected = site.connect()
        connected.sendall(request)
        kept.append(connected)
    until(lambda: site.server.site.streams.by_viewer.total() == 50, "the streams")
    for _ in range(200):
        assert b"503" in site.ask(request).partition(b"\r\n")[0]
    assert b"200 OK" in site.ask()
    for each in kept:
        each.close()
    until(lambda: not site.server.site.streams.by_viewer, "the streams' ends")


@pytest.mark.parametrize(
    "rude",
    [
        b"\x00\xff" * 1000,
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /" + b"a" * 60_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 60_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\nContent-Length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n",
        b"GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /\x1b[2J HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /%00%ff%1b[2J HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /?%00=%ff&a=\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX: y\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
def test_a_rude_request_is_refused_and_others_go_on(site, caplog, rude):
    with site.connect() as connected:
        with contextlib.suppress(ConnectionError):
            connected.sendall(rude)
            connected.shutdown(socket.SHUT_WR)
        answer = _all_of(connected)
    assert b"HTTP/1.1 5" not in answer
    assert b"Traceback" not in answer
    assert "Traceback" not in caplog.text
    assert "\x1b" not in caplog.text
    assert b"200 OK" in site.ask()


def test_the_bound_of_headers_is_below_what_the_server_reads():
    assert serving.MAX_HEADERS == bounds.MAX_HEADERS


def test_a_server_that_ends_ends_its_streams_first(site):
    with site.connect() as connected:
        connected.sendall(GET.replace(b"/health", b"/stream"))
        until(lambda: site.server.site.streams.by_viewer, "the stream")
        site.server.should_exit = True
        assert _all_of(connected).endswith(b"0\r\n\r\n"), "the stream ended in order"
    site.thread.join(DEADLINE)
    assert not site.thread.is_alive()


@pytest.fixture
def packmule(tmp_path: Path, server: EmbeddedServer, client: Redis) -> CommandLine:
    return CommandLine(tmp_path, environment_in(tmp_path, server.url))


def test_the_command_ends_within_seconds_while_streams_are_open(packmule):
    port = free_port()
    packmule.output("user", "add", "ada", "--role", "admin", "--no-password")
    environment = {"PACKMULE_TRUSTED_PROXY": "127.0.0.1", "PACKMULE_USER_HEADER": "X-User"}
    with packmule.started("dashboard", "--port", str(port), **environment) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == f"The dashboard is on http://127.0.0.1:{port}\n"
        request = urllib.request.Request(f"http://127.0.0.1:{port}/live?on=jobs", headers={"X-User": "ada"})
        with urllib.request.urlopen(request, timeout=DEADLINE) as opened:
            assert opened.readline() == b"retry: 2000\n"
            process.send_signal(signal.SIGTERM)
            opened.read()
        assert process.wait(DEADLINE) == 0
        assert "Traceback" not in process.stderr.read()


def uvicorn_of(home: Path, port: int, **changes: str) -> subprocess.Popen[str]:
    environment = environment_in(home, None, **changes)
    command = [sys.executable, "-m", "uvicorn", "packmule.dashboard.asgi:app", "--port", str(port)]
    return subprocess.Popen(command, cwd=home, env=environment, stderr=subprocess.PIPE, text=True)


def test_another_server_serves_the_application_and_leaves_no_redis_behind(tmp_path):
    port = free_port()
    embedded = EmbeddedServer(tmp_path / "data")
    process, address = uvicorn_of(tmp_path, port), f"http://127.0.0.1:{port}"

    def is_healthy() -> bool:
        assert process.poll() is None, process.communicate()
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as answer,
        ):
            return bool(answer.read() == b"ok\n")
        return False

    try:
        until(is_healthy, "the dashboard")
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{address}/jobs")
        refused.value.close()
        assert refused.value.code == 401
        assert embedded.pid() is not None
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=DEADLINE)
        assert embedded.pid() is None
    finally:
        process.kill()
        process.communicate()
        embedded.stop()


def test_another_server_prints_the_link_for_the_first_admin_once(tmp_path, server, client):
    """Several processes of a server start together: one of them prints it, and it works."""
    address, said = f"http://127.0.0.1:{(port := free_port())}", []

    def line() -> bool:
        said.append(process.stderr.readline())
        return said[-1].startswith("packmule: ")

    for is_first in (True, False):
        process = uvicorn_of(tmp_path, port, PACKMULE_REDIS_URL=server.url)
        try:
            until(line, "what the server says of the first admin")
            if is_first:
                link = re.search(r"open (/login/setup/\S+) at this server", said[-1])
                assert 0 < client.ttl("pm:setup-link-said") <= 20
                client.persist("pm:setup-link-said")
                until(lambda: asked(f"{address}/health") == 200, "the dashboard")
                assert asked(address + link[1]) == 200
            else:
                assert "another process of this server has just printed the link" in said[-1]
        finally:
            process.kill()
            process.communicate()
    client.delete("pm:setup-link-said")
    Users(client).add(User("ada", Role.ADMIN))
    process = uvicorn_of(tmp_path, port, PACKMULE_REDIS_URL=server.url)
    try:
        until(lambda: asked(f"{address}/health") == 200, "the dashboard")
        assert client.exists("pm:setup-link-said") == 0
    finally:
        process.terminate()
        assert "setup" not in process.communicate()[1]


def asked(address: str) -> int:
    """The status of a page's answer; 0 if nobody answers."""
    try:
        with urllib.request.urlopen(address, timeout=DEADLINE) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except OSError:
        return 0


@pytest.mark.parametrize(
    ("name", "value"),
    [("PACKMULE_PREFIX", "//evil"), ("PACKMULE_REDIS_URL", "http://a"), ("PACKMULE_PORT", "many")],
)
def test_what_is_wrong_with_the_settings_is_said_in_one_line(tmp_path, name, value):
    process = uvicorn_of(tmp_path, free_port(), **{name: value})
    _, said = process.communicate(timeout=DEADLINE)
    (line,) = said.splitlines()
    assert line.startswith(f"packmule: {name}")
    assert process.returncode == 2
