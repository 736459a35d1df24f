"""Webhooks: events arrive at least once, signed, and no receiver delays another."""

from __future__ import annotations

import json
import signal
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest

from packmule.coordination.streams.dead_letters import dead_letters_key
from packmule.coordination.streams.stream import Stream
from packmule.jobs import keys
from packmule.jobs.outgoing.door import Allowed
from packmule.jobs.toml_file import InvalidFile
from packmule.observe import events
from packmule.observe.webhooks import sender
from packmule.observe.webhooks.endpoints import Endpoint, Webhook, group_of, read_endpoints
from packmule.observe.webhooks.signature import key_of, verify
from packmule.tests.command_line import DEADLINE, CommandLine, complaint, environment_in, until

SECRET = "a secret of enough bytes"
LOOPBACK = Allowed(["127.0.0.0/8"])


class Receiver:
    """The events that a server on loopback received; `answer` returns the status for an event."""

    def __init__(self) -> None:
        self.got: list[dict[str, object]] = []
        self.answer = lambda event: 200
        self.port = 0

    @property
    def jobs(self) -> list[object]:
        return [event["job"] for event in self.got]


@contextmanager
def receiving():
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            event = json.loads(body)
            if self.headers["webhook-id"]:
                verify(SECRET, {name.lower(): value for name, value in self.headers.items()}, body)
            status = receiver.answer(event)
            if status == 200:
                receiver.got.append(event)
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield receiver
        server.shutdown()


def emit(client, *jobs: str, type: str = "finished", queue: str = "low") -> None:
    rows = [[type, job, queue, "w1", 1795600000.5, {"started": 1.0, "ended": 2.0}] for job in jobs]
    Stream(client, "pm:events", max_entries=10_000).append(rows)


def endpoint(name: str, port: int, **fields: object) -> Endpoint:
    return Endpoint(name, Webhook(f"http://127.0.0.1:{port}/hook", **fields), key_of(SECRET))


@contextmanager
def sending(server, *hooks: Endpoint):
    from packmule.coordination.redis.connection import connect

    stop = threading.Event()
    connected = []

    def one():
        connected.append(connect(None, server.data_dir))
        return connected[-1]

    thread = threading.Thread(target=sender.run, args=(one, hooks, LOOPBACK, stop))
    thread.start()
    with connect(None, server.data_dir) as client:
        until(lambda: has_groups(client, len(hooks)), "the groups")
    try:
        yield
    finally:
        stop.set()
        thread.join(DEADLINE)
        for each in connected:
            each.close()


def has_groups(client, count: int) -> bool:
    return bool(client.exists("pm:events")) and len(client.xinfo_groups("pm:events")) == count


def test_the_selected_events_arrive_signed(server, client):
    with receiving() as receiver, sending(server, endpoint("a", receiver.port, queues=("low",))):
        emit(client, "started", type="started")
        emit(client, "elsewhere", queue="high")
        emit(client, "x", "y")
        until(lambda: receiver.jobs == ["x", "y"], "both")
        assert receiver.got[0].keys() == {"id", "type", "job", "queue", "worker", "at", "details"}
        assert receiver.got[0]["details"] == {"started": 1.0, "ended": 2.0}


def test_a_failed_delivery_is_repeated_and_delays_no_other_webhook(server, client):
    with receiving() as receiver, receiving() as other:
        answers = iter([500, 503, 302])
        receiver.answer = lambda event: next(answers, 200)
        with sending(server, endpoint("a", receiver.port), endpoint("b", other.port)):
            emit(client, "x", "y")
            until(lambda: other.jobs == ["x", "y"], "those of the other")
            until(lambda: receiver.jobs == ["x", "y"], "those that were refused")


def test_an_event_that_a_receiver_never_accepts_is_a_dead_letter_and_can_be_sent_again(server, client):
    with receiving() as receiver:
        hook = endpoint("a", receiver.port)
        receiver.answer = lambda event: 422 if event["job"] == "x" else 200
        with sending(server, hook):
            emit(client, "x", "y")
            until(lambda: receiver.jobs == ["y"], "the other")
        (given_up,) = sender.dead(client, "a")
        assert given_up["reason"].endswith("answered 422")
        assert sender.resend(client, hook, LOOPBACK) == (0, 1)
        receiver.answer = lambda event: 200
        assert sender.resend(client, hook, LOOPBACK) == (1, 0)
        assert receiver.jobs == ["y", "x"]


@pytest.mark.parametrize("answer", [422, 500])
def test_neither_logs_nor_dead_letters_hold_the_secret_part_of_a_url(server, client, caplog, answer):
    with receiving() as receiver:
        receiver.answer = lambda event: answer
        url = f"http://127.0.0.1:{receiver.port}"
        hook = Endpoint("a", Webhook(f"{url}/T0/B0/s3cret?key=s3cret"), None)
        with sending(server, hook):
            emit(client, "x")
            until(lambda: f"{url}/... answered {answer}" in caplog.text, "the refusal")
        assert "s3cret" not in caplog.text
        assert all("s3cret" not in str(dead) for dead in sender.dead(client, "a"))


@pytest.mark.parametrize("record", [b"{", b'{"id": "\xff"}', b'{"id": ' + b"[" * 100_000])
def test_a_corrupt_dead_letter_is_listed_as_such(client, record):
    client.lpush(dead_letters_key(keys.JOB_EVENTS, group_of("a")), record)
    (found,) = sender.dead(client, "a")
    assert found["reason"].startswith("the record is corrupt: ")


def test_foreign_events_are_ignored(server, client):
    with receiving() as receiver, sending(server, endpoint("a", receiver.port)):
        Stream(client, "pm:events", max_entries=100).append(["garbage", [1, 2], {"a": 1}])
        client.xadd("pm:events", {"e": b"\xc1"})
        emit(client, "x")
        until(lambda: receiver.jobs == ["x"], "the valid one")


def nested(depth: int) -> bytes:
    """An event whose details have arrays in arrays, as msgpack."""
    head = msgspec.msgpack.encode(["finished", "deep", "low", "w1", 1795600000.5])
    return b"\x96" + head[1:] + b"\x81\xa1x" + b"\x91" * depth + b"\x90"


@pytest.mark.parametrize("depth", [10, 700, *range(900, 1000, 7), 100_000])
def test_an_event_of_any_depth_ends_no_reader_and_no_sender(server, client, depth):
    raw = b"\x91" + nested(depth)
    with receiving() as receiver, sending(server, endpoint("a", receiver.port)):
        client.xadd("pm:events", {"e": raw})
        client.xadd("pm:events", {"e": b"\x92\xa1\xff\x93"})
        emit(client, "good")
        until(lambda: "good" in receiver.jobs, "the event behind it")
    assert "good" in [each.job for each in events.read(client)]


@pytest.fixture
def packmule(server, tmp_path: Path) -> CommandLine:
    environment = environment_in(tmp_path, server.url)
    environment |= {"PACKMULE_WEBHOOK_ALLOW": "127.0.0.0/8", "PACKMULE_SECRET_SHOP": SECRET}
    return CommandLine(tmp_path, environment)


def test_a_killed_sender_skips_nothing(packmule, client, tmp_path):
    with receiving() as receiver:
        (tmp_path / "hooks.toml").write_text(
            f'[shop]\nurl = "http://127.0.0.1:{receiver.port}/"\nsecret = "shop"\n'
        )
        command = ("webhooks", "--file", "hooks.toml")
        hold = threading.Event()
        receiver.answer = lambda event: hold.wait(DEADLINE) and 200
        with packmule.started(*command) as process:
            until(lambda: has_groups(client, 1), "its group")
            emit(client, *(f"j{n}" for n in range(5)))
            until(lambda: client.xpending("pm:events", "webhook:shop")["pending"] == 1, "a delivery")
            process.send_signal(signal.SIGKILL)
            process.wait()
        hold.set()
        entry = client.xpending_range("pm:events", "webhook:shop", "-", "+", 1)[0]
        # As if it had been delivered more than a minute ago.
        client.xclaim("pm:events", "webhook:shop", entry["consumer"], 0, [entry["message_id"]], idle=70_000)
        with packmule.started(*command) as process:
            until(lambda: set(receiver.jobs) == {f"j{n}" for n in range(5)}, "all of them")
            until(
                lambda: client.xpending("pm:events", "webhook:shop")["pending"] == 0, "their acknowledgement"
            )
            listed = packmule.output("webhooks", "--file", "hooks.toml", "list", "--json")
            process.terminate()
            assert process.wait(DEADLINE) == 0
    assert json.loads(listed)[0] | {"url": ""} == {
        "webhook": "shop",
        "url": "",
        "types": ["finished", "failed", "stopped", "canceled", "quarantined"],
        "queues": [],
        "entries_behind": 0,
        "given_up": 0,
    }
    assert packmule.output("webhooks", "--file", "hooks.toml", "dead", "shop") == "no dead events"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[a", "is not valid TOML"),
        ('[a]\nurl = "ftp://x"', "is not an http"),
        ('[a]\nurl = "https://x.example"\ntypes = ["done"]', "'done' is not a type of event"),
        ('[a]\nurl = "https://x.example"\ntyps = ["finished"]', "typs"),
        ('[a]\nurl = "https://x.example"\nconcurrency = 0', "concurrency"),
        ('[a]\nurl = "https://x.example"\nsecret = "none"', "PACKMULE_SECRET_NONE"),
        ('[a]\nurl = "https://u:p@x.example"', "would appear in logs"),
    ],
)
def test_an_invalid_file_is_refused(tmp_path, text, expected, packmule):
    (tmp_path / "hooks.toml").write_text(text)
    assert expected in complaint(packmule.run("webhooks", "--file", "hooks.toml", "list"), 2)


def test_a_missing_file_and_an_unknown_webhook_are_reported(packmule, tmp_path):
    assert "PACKMULE_WEBHOOKS" in complaint(packmule.run("webhooks", "list"), 2)
    with pytest.raises(InvalidFile, match="no such file"):
        read_endpoints(tmp_path / "none.toml", LOOPBACK, str)
    (tmp_path / "hooks.toml").write_text('[a]\nurl = "https://x.example"\n')
    assert "no webhook is called 'b'" in complaint(
        packmule.run("webhooks", "--file", "hooks.toml", "dead", "b"), 2
    )
