"""The fetch job: what a URL leads to is stored whole or not at all, and only from where it may be."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from packmule.jobs import context
from packmule.jobs.files import fetch
from packmule.jobs.files.fetching import WrongType
from packmule.jobs.input_limits import InputLimits
from packmule.jobs.job_type import InvalidCall
from packmule.jobs.outgoing import door
from packmule.jobs.outgoing.door import Allowed, AnswerTooLarge, InvalidTarget
from packmule.jobs.outgoing.download import DownloadFailed, NotServed
from packmule.jobs.outgoing.fetch_list import FetchList, NotOnList
from packmule.jobs.storage import Storage, StorageError
from packmule.tests.jobs.stores import full_disk
from packmule.units import MIB

CSV = b"day,rain\n2026-11-01,3\n"


@dataclass
class Site:
    """A server whose paths answer as a test says; `asked` are the paths that were asked for."""

    port: int
    answers: dict[str, Callable[[BaseHTTPRequestHandler], None]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def file(self, path: str, content: bytes, length: int | None = None) -> str:
        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(content) if length is None else length))
            handler.end_headers()
            with suppress(OSError):
                handler.wfile.write(content)

        self.answers[path] = answer
        return self.url(path)

    def redirect(self, path: str, to: str) -> str:
        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(302)
            handler.send_header("Location", to)
            handler.send_header("Content-Length", "0")
            handler.end_headers()

        self.answers[path] = answer
        return self.url(path)


@pytest.fixture
def site() -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append(self.path)
            if self.path in found.answers:
                found.answers[self.path](self)
            else:
                self.send_error(404)

        def log_message(self, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found = Site(server.server_port)
        yield found
        server.shutdown()


@pytest.fixture(autouse=True)
def storage(tmp_path) -> Storage:
    storage = Storage(str(tmp_path / "files"))
    context.provide(storage, InputLimits(5 * MIB, MIB, MIB), Allowed(["127.0.0.0/8"]), FetchList())
    return storage


def test_what_is_at_a_url_gets_into_the_storage(site, storage):
    result = fetch(site.file("/data/rain%202026.csv?token=s3cret", CSV))
    digest = sha256(CSV).hexdigest()
    assert result == {
        "source": site.url("/data/rain%202026.csv?token=***"),
        "path": f"fetched/{digest[:16]}/rain-2026.csv",
        "bytes": len(CSV),
        "sha256": digest,
        "type": "text/csv",
    }
    assert storage.read_bytes(result["path"]) == CSV
    assert fetch(site.url("/data/rain%202026.csv?token=s3cret"), out="in/rain.csv")["path"] == "in/rain.csv"
    assert storage.names() == [result["path"], "in/rain.csv"]


def test_the_name_is_that_of_the_url_and_else_that_to_which_it_leads(site):
    site.file("/files/rain.csv", CSV)
    assert fetch(site.redirect("/latest", "/files/rain.csv"))["path"].endswith("/latest")
    assert fetch(site.redirect("/", "/files/rain.csv"))["path"].endswith("/rain.csv")
    assert fetch(site.file("/..%2f..%2fetc%2fpasswd", CSV))["path"].endswith("/passwd")


def test_a_file_that_is_too_large_or_cut_off_or_of_a_wrong_type_is_not_stored(site, storage):
    cases = [
        (site.file("/large", bytes(6 * MIB)), {}, AnswerTooLarge, r"more bytes than the limit of 5,242,880"),
        (site.file("/small", CSV), {"max_bytes": 10}, AnswerTooLarge, "more bytes than the limit of 10"),
        (site.file("/cut", CSV, length=1000), {}, DownloadFailed, "the answer broke off"),
        (
            site.file("/a.csv", b"<html><body>Log in"),
            {"types": ["text/csv"]},
            WrongType,
            "is text/html, not text/csv",
        ),
        (site.url("/missing"), {}, NotServed, "answers 404"),
        (site.redirect("/round", "/round"), {}, NotServed, "redirects more than 3 times"),
    ]
    for url, more, kind, words in cases:
        with pytest.raises(kind, match=words):
            fetch(url, **more)
    assert storage.names() == []
    assert fetch(site.url("/small"), types=["image/*", "text/*"])["type"] == "text/csv"


def test_a_chunk_of_less_than_nothing_is_not_all_that_a_server_ever_sends(site, storage):
    is_over = threading.Event()

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n")
        with suppress(OSError):
            handler.wfile.write(bytes(MIB))
            is_over.wait(60)  # a client that waits for all of it meets its deadline

    site.answers["/endless"] = endless
    with pytest.raises(DownloadFailed, match="LineTooLong"):
        fetch(site.url("/endless"), seconds=30)
    is_over.set()
    assert storage.names() == []


def test_what_a_server_says_instead_of_http_is_one_short_plain_line(site):
    def nonsense(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"\x1b[2J\x07" + b"no HTTP " * 5_000 + b"\r\n\r\n")

    site.answers["/nonsense"] = nonsense
    with pytest.raises(DownloadFailed, match="no HTTP") as failed:
        fetch(site.url("/nonsense"))
    assert str(failed.value).isprintable()
    assert len(str(failed.value)) < 400


def test_a_redirect_that_is_not_encoded_is_followed_as_browsers_do(site):
    site.file("/my%20files/%C3%A9.csv", CSV)
    with_utf8 = "/my files/é.csv".encode().decode("latin-1")
    assert fetch(site.redirect("/new", with_utf8))["bytes"] == len(CSV)


def test_a_redirect_to_a_port_that_is_none_is_refused_with_a_list_too(site):
    url = site.redirect("/open/a.csv", "http://127.0.0.1:99999/open/a.csv")
    with pytest.raises(InvalidTarget, match="Port out of range"):
        fetch(url)
    context.provide(FetchList([site.url("/open/")]))
    with pytest.raises(NotOnList, match="PACKMULE_FETCH_FROM"):
        fetch(url)


@pytest.mark.parametrize("size", [1_000_100, 2_000_000])
def test_a_full_disk_is_no_fault_of_the_server(site, storage, size):
    url = site.file("/large.bin", bytes(size))
    with (
        full_disk(1_000_000),
        pytest.raises(StorageError, match=r"can't be kept in .*: File too large: free space there") as failed,
    ):
        fetch(url)
    assert not isinstance(failed.value, OSError)
    assert storage.names() == []


def test_a_server_that_is_slow_is_given_up_in_time(site, storage):
    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        with suppress(OSError):
            while True:
                handler.wfile.write(b"x")
                handler.wfile.flush()
                time.sleep(0.05)

    site.answers["/drip"] = drip
    with pytest.raises(DownloadFailed, match="took longer"):
        fetch(site.url("/drip"), seconds=0.5)
    assert storage.names() == []


def test_no_redirect_and_no_name_leads_to_an_internal_host(site, monkeypatch):
    context.provide(Allowed())
    with pytest.raises(InvalidTarget, match="https"):
        fetch(site.file("/a.csv", CSV))
    answers = iter(["93.184.216.34", "127.0.0.1"])
    reached = []

    def resolve(host: str, port: int, **more: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    class Socket(socket.socket):
        def connect(self, where: tuple[str, int]) -> None:
            reached.append(where[0])
            raise ConnectionRefusedError("no network in this test")

    monkeypatch.setattr(door.socket, "getaddrinfo", resolve)
    monkeypatch.setattr(door.socket, "socket", Socket)
    # A name is resolved once a connection, and the address that was checked is the one that is connected to.
    with pytest.raises(DownloadFailed):
        fetch("https://rebinding.example/a.csv")
    with pytest.raises(InvalidTarget, match=r"127\.0\.0\.1, which is not a public address"):
        fetch("https://rebinding.example/a.csv")
    assert reached == ["93.184.216.34"]
    assert site.asked == []


def test_only_urls_on_the_list_are_fetched_redirects_included(site, storage):
    site.file("/open/a.csv", CSV)
    site.file("/secret/a.csv", CSV)
    context.provide(FetchList([site.url("/open/")]))
    assert fetch(site.url("/open/a.csv"))["bytes"] == len(CSV)
    site.redirect("/open/b.csv", "/secret/a.csv")
    for path in ("/secret/a.csv", "/open/b.csv", "/open/../secret/a.csv", "/open/%2e%2e/secret/a.csv"):
        with pytest.raises(NotOnList, match="PACKMULE_FETCH_FROM"):
            fetch(site.url(path))
    assert "/secret/a.csv" not in site.asked


@pytest.mark.parametrize(
    ("url", "is_allowed"),
    [
        ("https://example.org/a", True),
        ("https://EXAMPLE.org:8443/a", True),
        ("https://example.org.evil.net/a", False),
        ("https://evil.net/example.org", False),
        ("https://a.data.net/x", True),
        ("https://data.net/x", False),
        ("https://evildata.net/x", False),
        ("https://open.net/pub/x", True),
        ("https://open.net:443/pub/x", True),
        ("https://open.net:8443/pub/x", False),
        ("http://open.net/pub/x", False),
        ("https://open.net/private", False),
        ("https://open.net/pub/..\\x", False),
        ("https://open.net/pub/..;x/y", False),
        ("https://open.net/pub/%2e%2e%3bx/y", False),
        ("https://open.net/pub/%252e%252e/y", False),
        ("https://open.net/pub/a..b;c/..d", True),
        ("https://open.net:99999/pub/x", False),
    ],
)
def test_a_list_names_hosts_and_beginnings(url, is_allowed):
    urls = FetchList(["example.org", "*.data.net", "https://open.net/pub/"])
    if is_allowed:
        urls.check(url)
    else:
        with pytest.raises(NotOnList):
            urls.check(url)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ({"source": "ftp://example.org/a"}, "is not an http:// or https:// URL"),
        ({"source": "https://ada:pw@example.org/a"}, "user or password"),
        ({"source": "https://example.org/a", "out": "../a"}, "is not a path in the storage"),
        ({"source": "https://example.org/a", "seconds": 0}, "seconds=0"),
        ({"source": "https://example.org/a", "max_bytes": 0}, "max_bytes=0: give at least 1"),
        ({"source": "https://example.org/a", "types": []}, "name at least one, such as text/csv"),
    ],
)
def test_a_call_that_no_worker_could_perform_is_refused_at_once(call, words):
    with pytest.raises(InvalidCall, match=words):
        fetch.job.validate((), call)
