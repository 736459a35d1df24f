"""Flows and batches made by HTTP, once even if a request is sent again, and copies of jobs with edits."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from packmule.jobs import batch_state, delivery, flow_graph, keys, reader
from packmule.jobs.flow import Flow
from packmule.observe import audit
from packmule.tests.dashboard.api_site import NAME, Api

KEY = {"Idempotency-Key": "once"}


def node(name: str, job: str, /, **more: Any) -> dict[str, Any]:
    return {**({"name": name} if name else {}), "job": NAME + job, **more}


SHOP = {
    "name": "shop",
    "nodes": [
        node("one", "report", args=["2026-11"]),
        node("two", "report", kwargs={"month": "2026-12", "copies": 2}, options={"queue": "high"}),
        node("both", "echo", after=["one"], results={"value": ["one", "two"]}),
        node("alarm", "echo", args=["!"], after={"both": "run"}),
    ],
    "on_complete": {"job": NAME + "echo", "args": ["done"]},
    "collect": True,
}


def test_a_flow_of_named_nodes_runs_with_results_handed_on(api: Api) -> None:
    made = api.http.post("/flows", json=SHOP)
    assert made.status_code == 201, made.text
    flow = made.json()["flow"]
    assert made.headers["location"] == f"/api/v1/flows/{flow}"
    api.work()
    found = api.http.get(f"/flows/{flow}").json()
    assert found["name"] == "shop"
    one, two, both, alarm = made.json()["jobs"]
    assert api.http.get(f"/jobs/{both}").json()["result"] == ["1 of 2026-11", "2 of 2026-12"]
    assert api.http.get(f"/jobs/{two}").json()["queue"] == "high"
    assert reader.read(api.redis, one).status == "finished"
    nodes = {each["job"]: each["state"] for each in found["nodes"]}
    assert nodes[alarm] == "skipped"
    assert batch_state.read(api.redis, flow).counts.done == 4


def test_a_flow_goes_on_or_stops_behind_a_failure(api: Api) -> None:
    nodes = [
        node("bad", "boom"),
        node("", "echo", args=[1], after=["bad"]),
        node("", "echo", args=[2], after=["bad"], on_failure="go on"),
        node("", "echo", args=[3], after={"bad": "run"}),
    ]
    _, *behind = api.http.post("/flows", json={"nodes": nodes}).json()["jobs"]
    api.work()
    assert [reader.read(api.redis, id).status for id in behind] == ["canceled", "finished", "finished"]


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"nodes": []}, "#/nodes"),
        ({"nodes": [node("a", "gone")]}, "#/nodes/0/job"),
        ({"nodes": [node("a", "report", args=[3])]}, "#/nodes/0/args/0"),
        ({"nodes": [node("a", "report", kwargs={"month": "a", "year": 1})]}, "#/nodes/0/kwargs/year"),
        ({"nodes": [node("a", "report", args=["x"], options={"queue": "gone"})]}, "#/nodes/0/options/queue"),
        ({"nodes": [node("a", "echo", args=[1]), node("a", "echo", args=[1])]}, "#/nodes/1/name"),
        ({"nodes": [node("a", "echo", args=[1], after=["a"])]}, "#/nodes/0/after"),
        (
            {"nodes": [node("a", "echo", args=[1], after=["b"]), node("b", "echo", args=[1])]},
            "#/nodes/0/after",
        ),
        ({"nodes": [node("a", "echo", args=[1], after={"b": "perhaps"})]}, "#/nodes/0/after/-"),
        ({"nodes": [node("a", "echo", args=[1], on_failure="x")]}, "#/nodes/0/on_failure"),
        ({"nodes": [node("a", "echo", results={"value": "b"})]}, "#/nodes/0/results/value"),
        (
            {"nodes": [node("b", "boom"), node("a", "echo", args=[1], results={"value": "b"})]},
            "#/nodes/1/kwargs/value",
        ),
        (
            {"nodes": [node("b", "boom"), node("a", "echo", kwargs={"value": 1}, results={"value": "b"})]},
            "#/nodes/1/results/value",
        ),
        ({"nodes": [node("a", "echo", args=[1], options={"delay": 5})]}, "#/nodes/0/options"),
        ({"on_complete": {"job": NAME + "gone"}}, "#/on_complete/job"),
        ({"on_success": {"job": NAME + "report"}}, "#/on_success/kwargs/month"),
        ({"keep": 0}, "#/keep"),
        ({"color": "red"}, "#/color"),
    ],
)
def test_a_flow_that_makes_no_sense_is_not_made(api: Api, change: dict[str, Any], pointer: str) -> None:
    answer = api.http.post("/flows", json={**SHOP, **change})
    assert answer.status_code == 422, answer.text
    assert [each["pointer"] for each in answer.json()["errors"]] == [pointer], answer.text
    assert flow_graph.latest(api.redis, 10) == []
    assert api.http.get("/jobs").json()["jobs"] == []


def same(answers: list[httpx.Response], name: str) -> str:
    assert {each.status_code for each in answers} == {201}, [each.text for each in answers]
    (id,) = {each.json()[name] for each in answers}
    return str(id)


@pytest.mark.parametrize(
    "lost", ["nothing", "the answer's note", "the end", "the seal", "the edges", "all jobs"]
)
def test_a_flow_that_is_sent_again_is_there_once(
    api: Api, lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is what a process leaves that died at some point of the first request."""

    def die(*args: object, **options: object) -> None:
        raise RuntimeError("died")

    with monkeypatch.context() as patched:
        if lost == "the seal":
            patched.setattr(Flow, "seal", die)
        elif lost == "the edges":
            patched.setattr(delivery, "write_edges", die)
        elif lost == "all jobs":
            patched.setattr(delivery, "deliver", die)
        first = api.http.post("/flows", json=SHOP, headers=KEY)
    assert first.status_code == (500 if lost in ("the seal", "the edges", "all jobs") else 201)
    if lost == "the end":
        api.work()
    if lost != "nothing":
        for key in api.redis.scan_iter("pm:idempotent:*"):
            api.redis.delete(key)
    again = api.http.post("/flows", json=SHOP, headers=KEY)
    flow = same([again] if first.status_code == 500 else [first, again], "flow")
    api.work()
    api.work()
    assert len(flow_graph.latest(api.redis, 10)) == 1
    assert batch_state.read(api.redis, flow).counts.done == 4
    assert api.http.get(f"/jobs/{again.json()['jobs'][2]}").json()["result"] == [
        "1 of 2026-11",
        "2 of 2026-12",
    ]
    callbacks = [each for each in api.http.get("/jobs").json()["jobs"] if each["args"] == ["done"]]
    assert [each["status"] for each in callbacks] == ["finished"]
    assert api.http.post("/flows", json={**SHOP, "name": "x"}, headers=KEY).status_code == 422


def test_a_flow_that_is_sent_many_times_at_once_is_there_once(api: Api) -> None:
    together = threading.Barrier(6)

    def send(number: int) -> httpx.Response:
        with api.as_copy() as http:
            together.wait()
            return http.post("/flows", json=SHOP, headers=KEY)

    with ThreadPoolExecutor(6) as threads:
        flow = same(list(threads.map(send, range(6))), "flow")
    api.work()
    assert len(flow_graph.latest(api.redis, 10)) == 1
    assert batch_state.read(api.redis, flow).counts.done == 4


@pytest.mark.parametrize("is_noted", [True, False])
def test_a_batch_that_is_sent_again_is_there_once(api: Api, is_noted: bool) -> None:
    body = {"name": "b", "on_complete": {"job": NAME + "echo", "args": ["done"]}}
    answers = [api.http.post("/batches", json=body, headers=KEY)]
    if not is_noted:
        for key in api.redis.scan_iter("pm:idempotent:*"):
            api.redis.delete(key)
    answers.append(api.http.post("/batches", json=body, headers=KEY))
    batch = same(answers, "batch")
    assert len(api.http.get("/batches").json()) == 1
    calls = {"job": NAME + "echo", "calls": [[1], [2]]}
    added = [api.http.post(f"/batches/{batch}/jobs", json=calls, headers={"Idempotency-Key": "jobs"}).json()
             for _ in range(2)]  # fmt: skip
    assert added[0] == added[1]
    api.http.post(f"/batches/{batch}/seal")
    api.work()
    found = api.http.post("/batches", json=body, headers=KEY).json()
    assert (found["batch"], found["state"]) == (batch, "ended")
    callbacks = [each for each in api.http.get("/jobs").json()["jobs"] if each["args"] == ["done"]]
    assert [each["status"] for each in callbacks] == ["finished"]
    other = api.http.post("/batches", json={"name": "c"}, headers=KEY)
    assert (other.status_code, other.json()["type"]) == (422, "urn:packmule:KeyReused")


def test_a_copy_has_edits_and_is_made_once(api: Api) -> None:
    id = api.enqueue("report", "2026-11", copies=3)
    copied = api.http.post(f"/jobs/{id}/copy", json={"changes": {"month": "2026-12"}, "queue": "high"})
    assert copied.status_code == 201
    found = api.http.get(f"/jobs/{copied.json()['id']}").json()
    assert (found["args"], found["kwargs"], found["queue"]) == (["2026-12", 3], {}, "high")
    twice = [api.http.post(f"/jobs/{id}/copy", json={}, headers=KEY).json() for _ in range(2)]
    assert twice[0] == twice[1]
    assert len(api.http.get("/jobs").json()["jobs"]) == 3
    once = api.enqueue("once", 1)
    held = api.http.post(f"/jobs/{once}/copy", json={})
    assert (held.status_code, held.json()) == (200, {"id": once, "held": True})
    done = [each for each in audit.read(api.redis) if each.action == "job copy"]
    assert [each.subject["id"] for each in done] == [id, id, id, once]
    assert done[0].subject["new"] == copied.json()["id"]


def test_a_copy_that_can_not_be_made_says_why(api: Api) -> None:
    id = api.enqueue("report", "s3cret")
    for body, pointer in (
        ({"changes": {"copies": "x"}}, "#/changes"),
        ({"changes": {"year": 1}}, "#/changes"),
        ({"queue": "gone"}, "#/queue"),
        ({"args": []}, "#/args"),
    ):
        answer = api.http.post(f"/jobs/{id}/copy", json=body)
        assert answer.status_code == 422, answer.text
        assert [each["pointer"] for each in answer.json()["errors"]] == [pointer]
    assert api.http.post("/jobs/gone/copy", json={}).status_code == 404
    api.redis.hset(keys.job_key(id), "data", b"\x80\x04pickle")
    assert "can't be copied: the payload is a pickle" in api.http.post(f"/jobs/{id}/copy", json={}).text
    with api.as_("enqueue") as http:
        answer = http.post(f"/jobs/{id}/copy", json={})
        assert (answer.status_code, answer.json()["type"]) == (403, "urn:packmule:MissingScope")
    assert len(api.http.get("/jobs").json()["jobs"]) == 1


def test_only_tokens_that_enqueue_make_flows(api: Api) -> None:
    with api.as_("read", "act", "payloads") as http:
        for path, body in (("/flows", SHOP), ("/batches", {}), ("/jobs/x/copy", {})):
            assert http.post(path, json=body).status_code == 403
