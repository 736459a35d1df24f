"""Outgoing requests to URLs that others chose, and the signatures of webhooks."""

from __future__ import annotations

import base64
import ipaddress
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from packmule.jobs.outgoing import door as door_module
from packmule.jobs.outgoing import download as download_module
from packmule.jobs.outgoing.door import Allowed, AnswerTooLarge, InvalidTarget, NotSent, Outgoing
from packmule.jobs.outgoing.download import DownloadFailed, download
from packmule.observe.webhooks.signature import InvalidSecret, InvalidSignature, key_of, sign, verify
from packmule.tests.worker.pools import until

LOOPBACK = Allowed(["127.0.0.0/8"])


@contextmanager
def receiver(
    status: int = 200, headers: dict[str, str] | None = None
) -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """The URL of a server on loopback that answers with `status`, and the requests that it received."""
    got: list[tuple[str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            got.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            for name, value in {"Content-Length": "2", **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", got
        server.shutdown()


def test_one_connection_serves_many_posts_and_is_replaced_after_it_was_closed():
    with receiver() as (url, got):
        outgoing = Outgoing(f"{url}/hook?a=1", LOOPBACK)
        for number in range(3):
            assert outgoing.post(b"%d" % number, {}) == (200, b"ok")
            if number == 1:
                outgoing._connection.sock.shutdown(socket.SHUT_RDWR)
        outgoing.close()
    assert got == [("/hook?a=1", b"0"), ("/hook?a=1", b"1"), ("/hook?a=1", b"2")]


def test_a_redirect_is_not_followed():
    with receiver(302, {"Location": "http://127.0.0.1:1/"}) as (url, got):
        outgoing = Outgoing(url, LOOPBACK)
        assert outgoing.post(b"", {})[0] == 302
        outgoing.close()
    assert len(got) == 1


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "10.0.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "[::1]", "[fe80::1]",
     "[::ffff:127.0.0.1]", "[::ffff:10.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[fd00::1]",
     "224.0.0.1", "[fec0::1]", "192.0.0.8", "100.64.0.1", "2130706433", "0x7f.1"],
)  # fmt: skip
def test_nothing_is_sent_to_internal_addresses(host, monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("it connected"))
    with pytest.raises((InvalidTarget, NotSent)):
        Outgoing(f"https://{host}/").post(b"", {})


def test_a_name_of_an_internal_address_is_refused_unless_it_is_allowed(monkeypatch):
    with receiver() as (url, got):
        port = url.rpartition(":")[2]
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", int(port)))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        with pytest.raises(InvalidTarget, match="use https"):
            Outgoing(f"http://rebound.example:{port}/").post(b"", {})
        with pytest.raises(InvalidTarget, match="not a public address"):
            Outgoing(f"https://rebound.example:{port}/").post(b"", {})
        outgoing = Outgoing(f"http://hooks.example:{port}/", Allowed(["hooks.example"]))
        assert outgoing.post(b"x", {})[0] == 200
        outgoing.close()
    assert len(got) == 1


def test_public_addresses_are_accepted():
    outgoing = Outgoing("https://example.org/")
    for text in ("93.184.216.34", "2606:2800:220:1::1"):
        outgoing._check(text)
    assert Allowed(["10.0.0.0/8"]).covers("x", ipaddress.ip_address("10.1.1.1"))


@pytest.mark.parametrize(
    "url",
    ["ftp://a.example/", "https://", "nonsense", "https://user:secret@a.example/", "https://a.example:22/",
     "https://a.example:99999/", "https://a..b/", "https://a.example/a b"],
)  # fmt: skip
def test_invalid_urls_are_refused(url):
    with pytest.raises(InvalidTarget) as refused:
        Outgoing(url)
    assert "secret" not in str(refused.value)


def test_a_receiver_that_never_answers_is_given_up(monkeypatch):
    monkeypatch.setattr(door_module, "TOTAL_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(NotSent):
        Outgoing(f"http://127.0.0.1:{silent.getsockname()[1]}/", LOOPBACK).post(b"", {})


def test_an_answer_of_a_byte_at_a_time_is_cut_off(monkeypatch):
    monkeypatch.setattr(door_module, "TOTAL_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as slow:

        def answer() -> None:
            connection, _ = slow.accept()
            with suppress(OSError), connection:
                while True:
                    connection.sendall(b"H")
                    time.sleep(0.02)

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(NotSent):
            Outgoing(f"http://127.0.0.1:{slow.getsockname()[1]}/", LOOPBACK).post(b"", {})


def test_a_receiver_that_hangs_on_an_open_connection_gets_one_post(monkeypatch):
    requests = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection:
                        while data := connection.recv(65536):
                            requests.append(data)
                            if len(requests) == 1:
                                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        threading.Thread(target=serve, daemon=True).start()
        outgoing = Outgoing(f"http://127.0.0.1:{listening.getsockname()[1]}/", LOOPBACK)
        assert outgoing.post(b"", {})[0] == 200
        monkeypatch.setattr(door_module, "TOTAL_SECONDS", 1.0)
        with pytest.raises(NotSent):
            outgoing.post(b"", {})
        with socket.create_connection(listening.getsockname()) as last:  # it is served after all others
            last.sendall(b"the end")
            until(lambda: requests[-1] == b"the end")
    assert len(requests) == 3


def test_a_chunk_of_less_than_nothing_is_not_read_to_its_end(monkeypatch):
    monkeypatch.setattr(door_module, "TOTAL_SECONDS", 30)
    is_over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def flood() -> None:
            connection, _ = listening.accept()
            with connection, suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n")
                connection.sendall(bytes(1_000_000))
                is_over.wait(60)

        threading.Thread(target=flood, daemon=True).start()
        with pytest.raises(NotSent, match="LineTooLong"):
            Outgoing(f"http://127.0.0.1:{listening.getsockname()[1]}/", LOOPBACK).post(b"", {})
        is_over.set()


def test_an_unreachable_host_raises_not_sent():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(NotSent, match="refused"):
        Outgoing(f"http://127.0.0.1:{port}/", LOOPBACK).post(b"", {})


def test_signatures_are_verified_with_their_time():
    secret = "whsec_" + base64.b64encode(b"0123456789abcdef0123").decode()
    headers = sign(key_of(secret), "msg_1", 1000, b'{"a":1}')
    verify(secret, headers, b'{"a":1}', now=1001)
    verify(
        secret, headers | {"webhook-signature": "v1,no " + headers["webhook-signature"]}, b'{"a":1}', now=1001
    )
    for changed, body, now in (
        (headers, b'{"a":2}', 1001),
        (headers, b'{"a":1}', 1500),
        (headers | {"webhook-id": "msg_2"}, b'{"a":1}', 1001),
        ({}, b'{"a":1}', 1001),
    ):
        with pytest.raises(InvalidSignature):
            verify(secret, changed, body, now=now)


def test_the_signature_matches_the_specification():
    # The specification's own example.
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    signed = sign(key_of(secret), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signed["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("secret", ["short", "whsec_???", "whsec_YQ=="])
def test_invalid_secrets_are_refused(secret):
    with pytest.raises(InvalidSecret):
        key_of(secret)


@pytest.mark.parametrize(
    "url",
    ["ftp://x.org/s3cret", "https://x.org:99999/s3cret", "http://[::1/s3cret", "https://x.org/\u00e9s3cret"],
)
def test_an_invalid_url_is_named_without_what_follows_its_host(url: str) -> None:
    with pytest.raises(InvalidTarget) as refused:
        Outgoing(url)
    assert "s3cret" not in str(refused.value)


def test_a_download_is_cut_when_it_trickles_and_a_cut_file_is_no_success(tmp_path, monkeypatch):
    monkeypatch.setattr(download_module, "TOTAL_SECONDS", 0.3)
    for head in (b"Content-Length: 100\r\n", b""):
        with socket.create_server(("127.0.0.1", 0)) as listening:

            def trickle(listening: socket.socket = listening, head: bytes = head) -> None:
                connection, _ = listening.accept()
                with connection, suppress(OSError):
                    connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n" + head + b"\r\n")
                    while True:
                        connection.sendall(b"x")
                        time.sleep(0.02)

            threading.Thread(target=trickle, daemon=True).start()
            url = f"http://127.0.0.1:{listening.getsockname()[1]}/a.jpg"
            with pytest.raises(DownloadFailed, match=r"took longer than [0-9.]+ ms"):
                download(url, tmp_path / "a.jpg", 10_000, LOOPBACK)


def test_a_download_stops_at_its_limit(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def flood() -> None:
            connection, _ = listening.accept()
            with connection, suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                while True:
                    connection.sendall(bytes(65536))

        threading.Thread(target=flood, daemon=True).start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/key=secret"
        with pytest.raises(AnswerTooLarge, match="the limit of 100,000") as refused:
            download(url, tmp_path / "a.jpg", 100_000, LOOPBACK)
        assert "secret" not in str(refused.value)
        assert (tmp_path / "a.jpg").stat().st_size <= 100_000
