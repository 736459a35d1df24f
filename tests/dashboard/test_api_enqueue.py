"""Enqueueing by HTTP: what is taken, what is refused and why, and what is safe to send again."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from packmule import hooks
from packmule.jobs import keys, reader
from packmule.tests.dashboard.api_site import NAME, Api, report


def job(name: str, *args: Any, **options: Any) -> dict[str, Any]:
    return {"job": NAME + name, "args": list(args), "options": options}


def pointers(answer: httpx.Response) -> list[str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return [each.get("pointer") or each.get("header") for each in answer.json()["errors"]]


def test_a_job_is_enqueued_with_its_options(api: Api) -> None:
    body = {
        "job": NAME + "report",
        "kwargs": {"month": "2026-11"},
        "options": {"queue": "high", "retries": 3},
    }
    answer = api.http.post("/jobs", json=body)
    assert answer.status_code == 201
    id = answer.json()["id"]
    assert answer.headers["location"] == f"/api/v1/jobs/{id}"
    info = reader.read(api.redis, id)
    assert (info.name, info.kwargs, info.queue) == (report.job.name, {"month": "2026-11"}, "high")
    assert info.retries_left == 3
    assert api.redis.lrange("rq:queue:high", 0, -1) == [id.encode()]


def test_the_options_of_the_decorator_hold_unless_others_are_given(api: Api) -> None:
    id = api.http.post("/jobs", json=job("report", "2026-11")).json()["id"]
    assert reader.read(api.redis, id).queue == "low"


def test_a_job_may_be_due_at_an_instant(api: Api) -> None:
    body = job("report", "2026-11", at="2030-12-01T08:00:00+01:00")
    id = api.http.post("/jobs", json=body).json()["id"]
    assert api.redis.zscore("rq:scheduled:low", id) == datetime(2030, 12, 1, 7, tzinfo=UTC).timestamp()


@pytest.mark.parametrize("path", ["/jobs", "/jobs/many"])
def test_hooks_of_an_enqueue_keep_no_other_request_waiting(api: Api, path: str) -> None:
    on_loop: list[bool] = []

    @contextmanager
    def look(jobs: hooks.Enqueueing) -> Iterator[None]:
        on_loop.append(bool(asyncio._get_running_loop()))
        jobs.trace = "00-11111111111111111111111111111111-2222222222222222-01"
        yield

    hooks.enqueue(look)
    try:
        many = {"job": NAME + "report", "calls": [["a"]]}
        answer = api.http.post(path, json=job("report", "a") if path == "/jobs" else many)
    finally:
        hooks.forget(look)
    assert answer.status_code == 201
    assert on_loop == [False]
    id = answer.json().get("id") or answer.json()["ids"][0]
    assert api.redis.hget(f"rq:job:{id}", "trace").startswith(b"00-1111")


def test_many_jobs_are_enqueued_in_order(api: Api) -> None:
    body = {"job": NAME + "report", "calls": [["a"], {"month": "b", "copies": 2}, ["c"]]}
    ids = api.http.post("/jobs/many", json=body).json()["ids"]
    assert [id.decode() for id in api.redis.lrange("rq:queue:low", 0, -1)] == ids
    assert reader.read(api.redis, ids[1]).kwargs == {"month": "b", "copies": 2}


def test_many_jobs_at_the_front_keep_their_order(api: Api) -> None:
    body = {"job": NAME + "report", "calls": [["a"], ["b"]], "options": {"at_front": True}}
    ids = api.http.post("/jobs/many", json=body).json()["ids"]
    assert [id.decode() for id in api.redis.lrange("rq:queue:low", 0, -1)] == ids


def test_an_equal_unique_job_is_answered_instead(api: Api) -> None:
    first = api.http.post("/jobs", json=job("once", 1))
    second = api.http.post("/jobs", json=job("once", 1))
    assert (first.status_code, second.status_code) == (201, 200)
    assert second.json() == {"id": first.json()["id"], "held": True}
    many = {"job": NAME + "once", "calls": [[2], [1], [3]]}
    answer = api.http.post("/jobs/many", json=many).json()
    assert answer["held"] == [1]
    assert answer["ids"][1] == first.json()["id"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "#/job"),
        ({"job": 1}, "#/job"),
        ({"job": "shop.nothing"}, "#/job"),
        ({"job": "os.system", "args": ["true"]}, "#/job"),
        ({"job": NAME + "report", "arg": []}, "#/arg"),
        (job("report"), "#/kwargs/month"),
        (job("report", 1), "#/args/0"),
        (job("report", "a", "b"), "#/args/1"),
        ({"job": NAME + "report", "kwargs": {"month": "a", "copies": "b"}}, "#/kwargs/copies"),
        ({"job": NAME + "report", "kwargs": {"month": "a", "count": 1}}, "#/kwargs/count"),
        (job("report", "a", dealy=1), "#/options/dealy"),
        (job("report", "a", delay=-1), "#/options/delay"),
        (job("report", "a", delay="soon"), "#/options/delay"),
        (job("report", "a", at="2026-12-01T08:00:00"), "#/options/at"),
        (job("report", "a", queue="nowhere"), "#/options/queue"),
        (job("report", "a", priority=101), "#/options/priority"),
        (job("report", "a", job_id="a/b"), "#/options/job_id"),
        (job("report", "a", batch="gone"), "#/options/batch"),
        (job("report", "a", after=["gone"]), "#/options/after"),
    ],
    ids=str,
)
def test_a_mistake_is_a_problem_that_names_the_field(api: Api, body: Any, pointer: str) -> None:
    answer = api.http.post("/jobs", json=body)
    assert answer.status_code == 422, answer.text
    assert pointers(answer) == [pointer]
    assert answer.json()["detail"]
    assert api.redis.keys("rq:job:*") == []


def test_a_mistake_in_one_of_many_enqueues_none(api: Api) -> None:
    answer = api.http.post("/jobs/many", json={"job": NAME + "report", "calls": [["a"], {"month": 3}]})
    assert (answer.status_code, pointers(answer)) == (422, ["#/calls/1/month"])
    assert api.redis.keys("rq:job:*") == []


def test_large_numbers_stay_exact(api: Api) -> None:
    number = 2**53 + 1
    text = f'{{"job": "{NAME}echo", "args": [[{number}, {10**40}]]}}'
    id = api.http.post("/jobs", content=text, headers={"Content-Type": "application/json"}).json()["id"]
    assert reader.read(api.redis, id).args == [[number, 10**40]]
    assert f'"args":[[{number},{10**40}]]' in api.http.get(f"/jobs/{id}").text


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 422),
        (b"nonsense", 400),
        (b"[" * 100_000, 422),
        (b'{"job": "a", "args": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400),
        (b'{"job": "\xff"}', 400),
        (b'{"job": "\\ud800"}', 400),
        (b'{"job": "a", "args": [NaN]}', 400),
        (b'{"job": "a", "args": [1e999]}', 422),
        (b'{"job": "a", "args": [' + b"9" * 5000 + b"]}", 422),
        (b'{"job": "a\\u0000b"}', 422),
        (b"[]", 422),
        (b"null", 422),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_body_that_makes_no_sense_is_refused(api: Api, content: bytes, status: int) -> None:
    answer = api.http.post("/jobs", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_of_a_name_that_is_there_twice_the_last_counts(api: Api) -> None:
    text = f'{{"job": "os.system", "job": "{NAME}report", "args": ["a"]}}'
    answer = api.http.post("/jobs", content=text, headers={"Content-Type": "application/json"})
    assert answer.status_code == 201


def test_bodies_are_bounded_and_must_be_json(api: Api) -> None:
    large = api.http.post("/jobs", content=b"x" * 10_000_000, headers={"Content-Type": "application/json"})
    assert large.status_code == 413
    form = api.http.post("/jobs", data={"job": "a"})
    assert form.status_code == 415


def test_a_request_that_is_sent_again_under_its_key_enqueues_nothing(api: Api) -> None:
    again = {"Idempotency-Key": "order 7"}
    answers = [api.http.post("/jobs", json=job("report", "a"), headers=again) for _ in range(3)]
    assert len({answer.text for answer in answers}) == 1
    assert api.redis.llen("rq:queue:low") == 1


def test_the_answer_stays_when_the_job_is_gone(api: Api) -> None:
    again = {"Idempotency-Key": "order 8"}
    first = api.http.post("/jobs", json=job("report", "a"), headers=again).json()
    api.http.delete(f"/jobs/{first['id']}")
    assert api.http.post("/jobs", json=job("report", "a"), headers=again).json() == first
    assert api.redis.llen("rq:queue:low") == 0


def test_a_request_whose_answer_was_never_kept_finds_its_job(api: Api) -> None:
    """As if the process had died between the enqueue and the note of it."""
    again = {"Idempotency-Key": "order 9"}
    first = api.http.post("/jobs/many", json={"job": NAME + "report", "calls": [["a"], ["b"]]}, headers=again)
    (kept,) = api.redis.keys("pm:idempotent:*")
    api.redis.delete(kept)
    second = api.http.post(
        "/jobs/many", json={"job": NAME + "report", "calls": [["a"], ["b"]]}, headers=again
    )
    assert first.json() == second.json()
    assert api.redis.llen("rq:queue:low") == 2


def test_a_key_is_good_for_one_request_of_one_token(api: Api) -> None:
    again = {"Idempotency-Key": "order 10"}
    first = api.http.post("/jobs", json=job("report", "a"), headers=again).json()
    other = api.http.post("/jobs", json=job("report", "b"), headers=again)
    assert (other.status_code, pointers(other)) == (422, ["Idempotency-Key"])
    with api.as_("enqueue") as somebody:
        assert somebody.post("/jobs", json=job("report", "a"), headers=again).json() != first
    for bad in ("", "x" * 256, "a\tb", "\xe9"):
        refused = api.http.post(
            "/jobs",
            json=job("report", "a"),
            headers={"Idempotency-Key": bad.encode("latin-1")},  # type: ignore[dict-item]
        )
        assert refused.status_code == 422, bad


def test_requests_at_the_same_time_under_one_key_make_one_job(api: Api) -> None:
    answers: list[str] = []

    def send() -> None:
        with api.as_copy() as http:
            answer = http.post("/jobs", json=job("report", "a"), headers={"Idempotency-Key": "at once"})
            answers.append(answer.json()["id"])

    threads = [threading.Thread(target=send) for _ in range(12)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(answers) == 12
    assert len(set(answers)) == 1
    assert api.redis.llen("rq:queue:low") == 1


def test_one_request_that_fails_spoils_no_other_that_shares_its_trip(api: Api) -> None:
    statuses: list[int] = []
    batches = ["gone", None] * 12

    def send(batch: str | None) -> None:
        with api.as_copy() as http:
            options = {"batch": batch} if batch else {}
            statuses.append(http.post("/jobs", json=job("report", "a", **options)).status_code)

    threads = [threading.Thread(target=send, args=[batch]) for batch in batches]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(statuses) == [201] * 12 + [422] * 12
    assert api.redis.llen("rq:queue:low") == 12


def test_the_functions_that_can_be_enqueued_have_schemas(api: Api) -> None:
    found = {each["job"]: each["arguments"] for each in api.http.get("/job-types").json()}
    (definition,) = found[report.job.name]["$defs"].values()
    assert "integer" in str(definition["properties"]["copies"])


def test_a_job_enqueued_by_http_is_performed(api: Api) -> None:
    id = api.http.post("/jobs", json=job("report", "2026-11")).json()["id"]
    api.work()
    answer = api.http.get(f"/jobs/{id}").json()
    assert (answer["status"], answer["result"], answer["hidden"]) == ("finished", "1 of 2026-11", [])


def test_spans_of_options_are_seconds_or_texts(api: Api) -> None:
    options = {
        "timeout": "5m",
        "result_ttl": 90,
        "retries": 2,
        "retry_intervals": ["90s", 5],
        "delay": "PT1M",
    }
    id = api.http.post("/jobs", json={"job": NAME + "echo", "args": [1], "options": options}).json()["id"]
    record = api.redis.hgetall(keys.job_key(id))
    assert (record[b"timeout"], record[b"result_ttl"]) == (b"300", b"90")
    assert json.loads(record[b"retry_intervals"]) == [90, 5]
    assert record[b"status"] == b"scheduled"


@pytest.mark.parametrize(
    ("options", "pointer"),
    [
        ({"timeout": "5 minutes"}, "#/options/timeout"),
        ({"delay": "soon"}, "#/options/delay"),
        ({"retry_intervals": ["x"]}, "#/options/retry_intervals"),
        ({"timeout": [5]}, "#/options/timeout"),
    ],
)
def test_a_wrong_span_is_named_with_its_place(api: Api, options: dict[str, object], pointer: str) -> None:
    answer = api.http.post("/jobs", json={"job": NAME + "echo", "args": [1], "options": options})
    assert answer.status_code == 422
    assert pointer in answer.text
