"""Streams of the API: a job's and a batch's progress, output and end, and the events of all jobs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx
import msgspec
import pytest

from packmule.coordination.sessions.tokens import Tokens
from packmule.dashboard.api import service, sse
from packmule.jobs import keys
from packmule.jobs.read_tokens import REALM
from packmule.tests.command_line import DEADLINE, until
from packmule.tests.dashboard.api_site import NAME, Api, http_client


class Sent(NamedTuple):
    name: str
    data: Any
    id: str


@contextmanager
def following(http: httpx.Client, path: str, last: str = "", **query: str) -> Iterator[Iterator[Sent]]:
    """The events of a stream as they come."""
    headers = {"Last-Event-ID": last} if last else {}
    with http.stream("GET", path, headers=headers, params=query) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield _events(answer.iter_lines())


def _events(lines: Iterator[str]) -> Iterator[Sent]:
    found: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if not line and "event" in found:
            yield Sent(found["event"], msgspec.json.decode(found["data"]), found.get("id", ""))
            found = {}
        elif name in ("event", "data", "id"):
            found[name] = value


def test_a_jobs_stream_goes_from_its_status_to_its_end(api: Api) -> None:
    id = api.enqueue("talks", ["a", "b"])
    rest: list[Sent] = []

    def follow() -> None:
        with following(api.http, f"/jobs/{id}/stream") as events:
            for each in events:
                rest.append(each)

    watching = threading.Thread(target=follow)
    watching.start()
    until(lambda: rest, "the first event")
    assert rest[0][:2] == ("status", {"id": id, "status": "queued"})
    api.work()
    watching.join(DEADLINE)
    said = [chunk for each in rest if each.name == "output" for chunk in each.data]
    assert said == ["a", "b"]
    assert {"done": 1.0, "total": 2.0, "percent": 50.0, "message": "half"} in [each.data for each in rest]
    assert rest[-1] == Sent("end", {"id": id, "status": "finished", "result": 2}, "end")


def test_a_stream_goes_on_behind_the_last_event(api: Api) -> None:
    id = api.enqueue("talks", ["a", "b"])
    api.work()
    with following(api.http, f"/jobs/{id}/stream") as events:
        (output,) = [each for each in events if each.name == "output"]
    with following(api.http, f"/jobs/{id}/stream", last=output.id) as events:
        names = [each.name for each in events]
    assert "output" not in names
    assert names[-1] == "end"
    assert api.http.get(f"/jobs/{id}/stream", headers={"Last-Event-ID": "end"}).status_code == 204
    half = f"{output.id.partition('/')[0]}/1"
    cut = half.replace(output.id.partition("/")[0], "0-0")
    with following(api.http, f"/jobs/{id}/stream", last=cut) as events:
        assert [each.data for each in events if each.name == "output"] == [["b"]]


def test_a_stream_shows_no_output_to_whoever_may_not_see_it(api: Api) -> None:
    id = api.enqueue("talks", ["secret"])
    api.work()
    with api.as_("read") as http, following(http, f"/jobs/{id}/stream") as events:
        found = list(events)
    assert "output" not in [each.name for each in found]
    assert found[-1].data == {"id": id, "status": "finished", "result": None}


def test_a_stream_of_nothing_is_a_404_and_one_that_vanishes_ends(api: Api) -> None:
    assert api.http.get("/jobs/gone/stream").status_code == 404
    assert api.http.get("/batches/gone/stream").status_code == 404
    id = api.enqueue("talks", [])
    with following(api.http, f"/jobs/{id}/stream") as events:
        next(events)
        api.redis.delete(keys.job_key(id))
        assert list(events)[-1].data["status"] == "gone"


def test_a_batchs_stream_counts_to_its_end(api: Api) -> None:
    batch = api.http.post("/batches", json={}).json()["batch"]
    api.http.post(f"/batches/{batch}/jobs", json={"job": NAME + "report", "calls": [["a"], ["b"]]})
    token = api.http.post(f"/batches/{batch}/read-token", json={}).json()["token"]
    path = f"/batches/{batch}/stream"
    with http_client(api.site.address, "") as http, following(http, path, token=token) as events:
        assert next(events).data["pending"] == 2
        api.http.post(f"/batches/{batch}/seal")
        api.work()
        end = list(events)[-1]
    assert (end.name, end.data["done"], end.data["state"]) == ("end", 2, "ended")


def test_a_stream_ends_with_its_token(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "CHECK_SECONDS", 0.1)
    id = api.enqueue("talks", [])
    with api.as_("read") as http, following(http, f"/jobs/{id}/stream") as events:
        next(events)
        Tokens(api.redis, REALM).revoke("read")
        assert list(events) == []


def test_a_quiet_stream_says_that_it_is_still_here(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "QUIET_SECONDS", 0.1)
    id = api.enqueue("talks", [])
    with api.http.stream("GET", f"/jobs/{id}/stream") as answer:
        for line in answer.iter_lines():
            if line == ": still here":
                return
    raise AssertionError("the stream ended")


def test_streams_are_counted_and_bounded(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MOST_OF_ONE", 1)
    id = api.enqueue("talks", [])
    with following(api.http, f"/jobs/{id}/stream") as events:
        next(events)
        with api.as_copy() as http:
            refused = http.get(f"/jobs/{id}/stream")
            assert (refused.status_code, refused.json()["type"]) == (503, "urn:packmule:TooManyStreams")
            assert refused.headers["retry-after"]
    until(lambda: api.http.get(f"/jobs/{id}/wait?timeout=0").status_code == 200, "an answer")

    def is_free() -> bool:
        with api.as_copy() as http, http.stream("GET", f"/jobs/{id}/stream") as answer:
            return answer.status_code == 200

    until(is_free, "the stream that was left is counted no more")


def test_events_come_as_they_happen_and_from_where_one_was(api: Api) -> None:
    first = api.enqueue("report", "a")
    with following(api.http, "/events", type="enqueued", since="0") as events:
        was = next(events)
        assert (was.name, was.data["job"], was.data["id"]) == ("enqueued", first, was.id)
        second = api.enqueue("report", "b")
        assert next(events).data["job"] == second
    with following(api.http, "/events", last=was.id) as events:
        assert next(events).data["job"] == second


def test_events_are_filtered_and_their_texts_hidden(api: Api) -> None:
    api.enqueue("boom")
    id = api.enqueue("talks", ["a"])
    api.work()
    with following(api.http, "/events", since="0", job=id) as events:
        assert next(events).data["job"] == id
    with following(api.http, "/events", since="0", type="error_new") as events:
        assert next(events).data["details"]["text"] == "the shelf is empty"
    with api.as_("read") as http, following(http, "/events", since="0", type="error_new") as events:
        details = next(events).data["details"]
    assert "text" not in details
    assert details["fingerprint"]


@pytest.mark.parametrize("query", ["since=yesterday", "since=" + "9" * 40, "type=exploded", "queue=a&sort=b"])
def test_events_of_nothing_that_there_is_are_refused(api: Api, query: str) -> None:
    assert api.http.get(f"/events?{query}").status_code == 422


def test_waiting_ends_with_the_job_or_the_time(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    id = api.enqueue("report", "a")
    began = time.monotonic()
    assert api.http.get(f"/jobs/{id}/wait", params={"timeout": 0.1}).json()["status"] == "queued"
    assert time.monotonic() - began < 30
    answers: list[str] = []

    def wait() -> None:
        answers.append(api.http.get(f"/jobs/{id}/wait", params={"timeout": 60}).json()["status"])

    waiting = threading.Thread(target=wait)
    waiting.start()
    api.work()
    waiting.join(DEADLINE)
    assert answers == ["finished"]
    late = api.enqueue("report", "b")
    monkeypatch.setattr(service, "MOST_WAITS", 0)
    assert api.http.get(f"/jobs/{late}/wait", params={"timeout": 60}).json()["status"] == "queued"
    for timeout in ("-1", "61", "nan", "soon", "9" * 300, "2m", "-PT1S", ""):
        refused = api.http.get(f"/jobs/{id}/wait", params={"timeout": timeout})
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["parameter"] == "timeout"
    for timeout in ("1m", "0.30000000000000004", "PT5S"):
        assert api.http.get(f"/jobs/{id}/wait", params={"timeout": timeout}).json()["status"] == "finished"
