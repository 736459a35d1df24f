"""RQ's webhooks: sent once the outcome is recorded, by requests that reach no internal host."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis
from rq import Callback, Queue, Retry, Webhook
from rq.serializers import JSONSerializer

from packmule.jobs import registry
from packmule.jobs.client import Client
from packmule.tests.worker.test_callbacks import Desk, is_settled
from packmule.worker import Worker
from packmule.worker.options import WorkerOptions
from packmule.worker.process import outcome
from packmule.worker.rescue import rescue

HERE = "packmule.tests.worker.callback_jobs"
ALLOWED = WorkerOptions(webhook_allow=("127.0.0.0/8",))


class Receiver(http.server.HTTPServer):
    """Keeps what it receives; refuses everything if `status` says so."""

    status = 200

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.received: list[tuple[str, str, dict[str, str], Any]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/hook"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Receiver

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        content = json.loads(body) if body else None
        self.server.received.append((self.command, self.path, dict(self.headers), content))
        self.send_response(self.server.status)
        self.end_headers()

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        yield receiver
        receiver.shutdown()


@pytest.fixture
def queue(client: Redis) -> Queue:
    Client(client).make_default()
    registry.load([HERE])
    return Queue("default", connection=client, serializer=JSONSerializer)


def work(client: Redis, options: WorkerOptions | None = None) -> None:
    Worker(["default"], connection=client, options=options).work(burst=True)


def hooks(receiver: Receiver) -> list[Webhook]:
    sent = {"X-Kind": "a", "Host": "elsewhere", "Content-Length": "9"}
    return [
        Webhook(receiver.url, "finished", method="POST", headers=sent),
        Webhook(receiver.url + "?failed=1", "failed", method="POST"),
        Webhook(receiver.url + "?plain=1", "finished"),
    ]


def test_webhooks_of_the_outcome_are_sent_after_its_callback(queue, client, receiver):
    job = queue.enqueue(f"{HERE}.body", webhooks=hooks(receiver), on_success=Callback(f"{HERE}.succeeded"))
    work(client, ALLOWED)
    (post, path, headers, content), (get, plain, _, nothing) = receiver.received
    assert (post, path, get, plain, nothing) == ("POST", "/hook", "GET", "/hook?plain=1", None)
    assert (headers["X-Kind"], headers["Host"]) == ("a", receiver.url[7:].partition("/")[0])
    assert {name: content[name] for name in ("job_id", "func_name", "status")} == {
        "job_id": job.id,
        "func_name": f"{HERE}.body",
        "status": "finished",
    }
    assert client.lrange("calls", 0, -1) == [b"body", b"success 1 finished"]
    assert not client.hexists(job.key, "callback_due")
    assert 0 < client.ttl(job.key) <= 500


def test_a_failed_job_sends_its_error_once_no_retries_are_left(queue, client, receiver):
    queue.enqueue(f"{HERE}.fails", webhooks=hooks(receiver), retry=Retry(max=1))
    work(client, ALLOWED)
    ((_, path, _, content),) = receiver.received
    assert path == "/hook?failed=1"
    assert "KeyError: 'no such thing'" in content["exc_info"]
    assert client.lrange("calls", 0, -1) == [b"body", b"body"]


@pytest.mark.parametrize("url", ["http://127.0.0.1:{}/", "https://localhost:{}/", "https://169.254.169.254/"])
def test_a_webhook_to_an_internal_host_is_refused_and_the_job_is_done(queue, client, receiver, caplog, url):
    url = url.format(receiver.server_address[1])
    job = queue.enqueue(f"{HERE}.body", webhooks=[Webhook(url, "finished", method="POST")])
    good = queue.enqueue(f"{HERE}.body")
    work(client)
    assert receiver.received == []
    assert f"job {job.id}: a webhook was not sent" in caplog.text
    assert [each.get_status(refresh=True) for each in (job, good)] == ["finished", "finished"]
    assert not client.hexists(job.key, "callback_due")


def test_a_receiver_that_refuses_is_logged(queue, client, receiver, caplog):
    receiver.status = 500
    queue.enqueue(f"{HERE}.body", webhooks=hooks(receiver)[:1])
    work(client, ALLOWED)
    assert "a webhook was answered with 500" in caplog.text


@pytest.mark.parametrize(
    "text", ["", "[", "5", '[{"url": 1}]', '[{"url": "http://a", "job_status": "x"}]', "[" * 5000]
)
def test_webhooks_that_make_no_sense_stop_nobody(queue, client, text):
    job, good = queue.enqueue(f"{HERE}.body"), queue.enqueue(f"{HERE}.body")
    client.hset(job.key, "webhooks", text)
    work(client)
    assert [each.get_status(refresh=True) for each in (job, good)] == ["finished", "finished"]
    assert not client.hexists(job.key, "callback_due")


@pytest.mark.parametrize("by_force", [True, False])
def test_a_job_that_was_stopped_sends_no_webhook(queue, client, by_force):
    job = queue.enqueue(f"{HERE}.body", webhooks=[Webhook("http://a", "failed")])
    desk = Desk(client)
    (claimed,) = desk.exchange()
    if by_force:
        rescue(client, "w1", "stopped", "why", [claimed.execution])
    else:
        stopped = outcome.failed(claimed, "why", 1.0, 2.0, retry=False, status="stopped")
        assert desk.exchange([stopped]) == []
    assert job.get_status(refresh=True) == "stopped"
    assert is_settled(client, job)
    assert queue.job_ids == []


def test_an_attempt_before_the_last_begins_no_webhooks(queue, client):
    job = queue.enqueue(f"{HERE}.fails", webhooks=[Webhook("http://a", "failed")], retry=Retry(max=1))
    desk = Desk(client)
    (claimed,) = desk.exchange()
    (again,) = desk.exchange([outcome.failed(claimed, "why", 1.0, 2.0)])
    assert (again.id, again.due) == (job.id, None)
