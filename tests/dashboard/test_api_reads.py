"""Reading and steering by HTTP, and what the API says when Redis is away or holds garbage."""

from __future__ import annotations

from typing import Any

import pytest
from redis import Redis
from rq import Queue

from packmule.coordination.redis.connection import connect
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.jobs import keys, schedule_store
from packmule.jobs.flow import Flow
from packmule.jobs.schedule import schedule
from packmule.tests.command_line import until
from packmule.tests.dashboard.api_site import NAME, Api, boom, report, served_api


def test_jobs_are_searched_in_pages(api: Api) -> None:
    ids = [api.enqueue("report", f"{number}") for number in range(5)]
    seen, cursor = [], None
    while True:
        asked: dict[str, Any] = {"limit": 2, "name": "report"} | ({"cursor": cursor} if cursor else {})
        page = api.http.get("/jobs", params=asked).json()
        seen += [job["id"] for job in page["jobs"]]
        cursor = page["cursor"]
        if cursor is None:
            break
    assert sorted(seen) == sorted(ids)
    (one,) = api.http.get("/jobs", params={"arg": "month=3"}).json()["jobs"]
    assert one["args"] == ["3"]


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("status=lost", "status"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=1e9", "limit"),
        ("limit=NaN", "limit"),
        ("limit=" + "9" * 300, "limit"),
        ("since=soon", "since"),
        ("since=2026-11-30T08:00:00", "since"),
        ("arg=month", "arg"),
        ("cursor=x", "cursor"),
        ("cursor=%ff", "cursor"),
        ("sort=name", "sort"),
        ("name=a&name=b", "name"),
    ],
)
def test_a_query_that_makes_no_sense_names_its_parameter(api: Api, query: str, parameter: str) -> None:
    answer = api.http.get(f"/jobs?{query}")
    assert answer.status_code == 422, answer.text
    assert [each["parameter"] for each in answer.json()["errors"]] == [parameter]


def test_a_job_that_has_not_changed_is_not_sent_again(api: Api) -> None:
    id = api.enqueue("report", "a")
    first = api.http.get(f"/jobs/{id}")
    again = {"If-None-Match": first.headers["etag"]}
    same = api.http.get(f"/jobs/{id}", headers=again)
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", first.headers["etag"])
    api.work()
    assert api.http.get(f"/jobs/{id}", headers=again).status_code == 200


def test_a_pickled_job_says_that_it_is_one(api: Api) -> None:
    id = Queue("default", connection=api.redis).enqueue("shop.report", "2026-11").id
    job = api.http.get(f"/jobs/{id}").json()
    assert (job["name"], job["args"]) == ("shop.report", [])
    assert job["unread"] == "the payload is a pickle: enqueue with RQ's JSONSerializer"
    with api.as_("read") as reading:
        assert reading.get(f"/jobs/{id}").json()["unread"] == job["unread"]


def test_a_job_is_steered(api: Api) -> None:
    later = api.http.post("/jobs", json={"job": NAME + "report", "args": ["a"], "options": {"delay": 3600}})
    id = later.json()["id"]
    assert api.http.post(f"/jobs/{id}/run").json() == {"id": id, "status": "queued"}
    assert api.http.post(f"/jobs/{id}/run").status_code == 409
    assert api.http.post(f"/jobs/{id}/cancel", json={}).json()["status"] == "canceled"
    assert api.http.post(f"/jobs/{id}/signal", json={"name": "go"}).status_code == 409
    assert api.http.post(f"/jobs/{id}/retry").json()["status"] == "queued"
    assert api.http.delete(f"/jobs/{id}").status_code == 204
    assert api.http.delete(f"/jobs/{id}").status_code == 404


def test_the_time_for_a_cancel_and_for_keeping_a_batch_may_be_texts(api: Api) -> None:
    id = api.enqueue("report", "a")
    for timeout in ("11s", "soon", -1, 11, None):
        refused = api.http.post(f"/jobs/{id}/cancel", json={"timeout": timeout})
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "#/timeout")
    assert api.http.post(f"/jobs/{id}/cancel", json={"timeout": "2s"}).json()["status"] == "canceled"
    batch = api.http.post("/batches", json={"keep": "2d"}).json()["batch"]
    assert api.redis.hget(keys.batch_key(batch), "keep") == b"172800"
    node = {"job": NAME + "report", "args": ["a"]}
    flow = api.http.post("/flows", json={"nodes": [node | {"name": "a"}], "keep": "2d"}).json()["flow"]
    assert api.redis.hget(keys.batch_key(flow), "keep") == b"172800"
    for keep in ("0s", "soon"):
        assert api.http.post("/batches", json={"keep": keep}).status_code == 422


def test_a_batch_goes_from_its_making_to_its_end(api: Api) -> None:
    body = {"name": "import", "collect": True, "on_success": {"job": NAME + "echo", "args": ["done"]}}
    batch = api.http.post("/batches", json=body).json()["batch"]
    api.http.post(f"/batches/{batch}/jobs", json={"job": NAME + "report", "calls": [["a"], ["b"]]})
    api.http.post(f"/batches/{batch}/jobs", json={"job": NAME + "boom", "calls": [[]]})
    assert api.http.post(f"/batches/{batch}/pause").json()["state"] == "paused"
    assert api.http.post(f"/batches/{batch}/resume").json()["state"] == "growing"
    assert api.http.post(f"/batches/{batch}/seal").json()["state"] == "running"
    api.work()
    found = api.http.get(f"/batches/{batch}/wait", params={"timeout": 30}).json()
    assert (found["state"], found["done"], found["failed"]) == ("ended", 2, 1)
    assert len(api.http.get(f"/batches/{batch}/failed").json()["ids"]) == 1
    outcomes = api.http.get(f"/batches/{batch}/results").json()["outcomes"]
    assert sorted(str(each["value"]) for each in outcomes) == ["1 of a", "1 of b", "None"]
    late = api.http.post(f"/batches/{batch}/jobs", json={"job": NAME + "report", "calls": [["c"]]})
    assert late.status_code == 409
    for bad in ({"on_success": {"job": "nope"}}, {"keep": 0}, {"parent": "gone"}):
        assert api.http.post("/batches", json=bad).status_code in (404, 422)
    fault = api.http.post("/batches", json={"on_success": {"job": NAME + "report", "args": [1]}}).json()
    assert fault["errors"][0]["pointer"] == "#/on_success/args/0"


def test_a_flow_is_read_and_its_failed_nodes_run_again(api: Api) -> None:
    with Flow("import", client=api.redis) as flow:
        first = flow.add(boom.call())
        flow.add(report.call("a"), after=first)
    api.work()
    found = api.http.get(f"/flows/{flow.id}").json()
    assert [node["state"] for node in found["nodes"]] == ["failed", "canceled"]
    assert [each["batch"] for each in api.http.get("/flows").json()] == [flow.id]
    assert api.http.post(f"/flows/{flow.id}/retry").json()["nodes"] == 1
    assert api.http.post(f"/flows/{flow.id}/cancel").status_code == 200
    batch = api.http.post("/batches", json={}).json()["batch"]
    assert api.http.get(f"/flows/{batch}").status_code == 404


def test_queues_are_paused_limited_purged_and_measured(api: Api) -> None:
    for number in range(3):
        api.enqueue("report", f"{number}")
    assert api.http.get("/scale/low").json()["waiting"] == 3
    whole = api.http.get("/scale").json()
    assert (whole["waiting"], whole["queues"]["low"]["waiting"]) == (3, 3)
    assert api.http.post("/queues/low/pause").json() == {"queue": "low", "paused": True, "changed": True}
    assert api.http.get("/queues/low").json()["paused"]
    assert api.http.get("/scale/low").json()["waiting"] == 0
    assert not api.http.post("/queues/low/resume").json()["paused"]
    assert api.http.put("/queues/low/rate", json={"rate": "100/m"}).json()["rate"] == "100/m"
    assert api.http.put("/queues/low/rate", json={"rate": "much"}).json()["errors"][0]["pointer"] == "#/rate"
    assert api.http.put("/queues/low/rate", json={"rate": None}).json()["rate"] is None
    assert api.http.post("/queues/low/purge").json() == {"queue": "low", "deleted": 3}
    assert api.http.post("/queues/nowhere/purge").status_code == 404


def test_a_queue_may_have_any_name(api: Api) -> None:
    for name in ("a/b", "a b", "ä", "x%2Fy", "<b>"):
        api.redis.sadd("rq:queues", f"rq:queue:{name}")
        path = "".join(f"%{byte:02x}" for byte in name.encode())
        assert api.http.post(f"/queues/{path}/pause").json()["queue"] == name


def test_schedules_are_read_paused_and_run(api: Api) -> None:
    table = {"job": report.job.name, "every": "1h", "kwargs": {"month": "secret"}}
    schedule_store.put(api.redis, schedule("nightly", table))
    assert [each["name"] for each in api.http.get("/schedules").json()] == ["nightly"]
    assert api.http.post("/schedules/nightly/pause").json()["state"] == "paused"
    assert api.http.post("/schedules/nightly/resume").json()["state"] == "active"
    id = api.http.post("/schedules/nightly/run").json()["id"]
    found = api.http.get("/schedules/nightly").json()
    assert (found["ticks"][-1]["job"], found["schedule"]["kwargs"]) == (id, {"month": "secret"})
    with api.as_("read") as http:
        assert "secret" not in http.get("/schedules/nightly").text + http.get("/schedules").text


def test_errors_are_resolved_and_their_jobs_run_again(api: Api) -> None:
    id = api.enqueue("boom")
    api.work()
    (error,) = api.http.get("/errors").json()
    path = f"/errors/{error['fingerprint']}"
    assert "the shelf is empty" in api.http.get(path).json()["traceback"]
    assert api.http.post(f"{path}/resolve").json()["before"] == "open"
    assert api.http.get("/errors").json() == []
    assert len(api.http.get("/errors", params={"state": "resolved"}).json()) == 1
    assert api.http.post(f"{path}/reopen").json()["state"] == "open"
    assert api.http.post(f"{path}/retry").json() == {"done": [id], "refused": []}


@pytest.mark.parametrize(
    "id", ["x" * 300, "%00", "%0d%0aX-Evil:1", "..%2f..", "%ff%fe", "<script>", "*", "%F0%9F%90%B4"]
)
def test_an_id_of_nothing_is_a_404_in_words(api: Api, id: str) -> None:
    for path in (f"/jobs/{id}", f"/batches/{id}", f"/errors/{id}", f"/flows/{id}", f"/schedules/{id}"):
        answer = api.http.get(path)
        assert answer.status_code in (400, 404), path
        assert answer.headers["content-type"] == "application/problem+json"
        assert "x-evil" not in answer.headers
        assert answer.json()["detail"].isprintable()


def test_what_is_not_there_or_not_for_this_method_says_so(api: Api) -> None:
    assert api.http.get("/nowhere").json()["type"] == "urn:packmule:NoSuchPath"
    wrong = api.http.put("/jobs", json={})
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET, HEAD, OPTIONS, POST")
    assert api.http.head("/queues").status_code == 200
    assert api.http.options("/queues").headers["allow"] == "GET, HEAD, OPTIONS"


def test_garbage_in_redis_spoils_only_what_it_is_in(api: Api) -> None:
    good = api.enqueue("report", "a")
    bad = {"str": b"x", "hash": {b"data": b"\xff\xfe", b"status": b"\xff", b"created_at": b"never"}}
    api.redis.set("rq:job:str", bad["str"])
    api.redis.hset("rq:job:hash", mapping=bad["hash"])  # type: ignore[arg-type]
    api.redis.rpush("rq:queue:low", "str", "hash", b"\xff", "gone")
    api.redis.hset("pm:batch:odd", "created", "never")
    api.redis.zadd("pm:batches", {"odd": 1})
    api.redis.set("pm:errors", "x")
    for path in (
        "/jobs",
        "/jobs/hash",
        "/queues",
        "/scale",
        "/batches",
        "/batches/odd",
        "/flows",
        "/errors",
        "/workers",
    ):
        answer = api.http.get(path)
        assert answer.status_code in (200, 404, 409), (path, answer.text)
    assert good in api.http.get("/jobs").text
    assert api.http.get("/jobs/str").status_code == 404


def test_while_redis_is_away_the_api_says_so_and_recovers(spare_server: Any) -> None:
    server: EmbeddedServer = spare_server()
    with connect(server.url, server.data_dir) as client, served_api(client) as api:
        id = api.enqueue("report", "a")
        server.stop()
        for answer in (
            api.http.get(f"/jobs/{id}"),
            api.http.get("/queues"),
            api.http.post("/jobs", json={"job": NAME + "report", "args": ["b"]}),
        ):
            assert answer.status_code == 503, answer.text
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.headers["content-type"] == "application/problem+json"
            assert str(server.data_dir) not in answer.text
        server.ensure()
        until(lambda: api.http.get(f"/jobs/{id}").status_code == 200, "the recovery")


def test_a_server_that_takes_no_writes_is_a_503(client: Redis) -> None:
    with served_api(client) as api:
        api.http.get("/queues")
        client.config_set("maxmemory", "1")
        try:
            answer = api.http.post("/jobs", json={"job": NAME + "report", "args": ["b"]})
        finally:
            client.config_set("maxmemory", "0")
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
