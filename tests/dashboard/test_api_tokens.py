"""Who may do what by the API: scopes on each operation, bound tokens, rates, and what is never shown."""

from __future__ import annotations

import logging
import re
import time

import pytest
from redis import Redis

from packmule.coordination.limits.rate import Rate
from packmule.coordination.sessions.tokens import Tokens
from packmule.dashboard.api.admission import TRUSTED_FOR
from packmule.dashboard.api.api import ENDPOINTS
from packmule.dashboard.api.endpoint import Endpoint
from packmule.dashboard.api.options import ApiOptions
from packmule.dashboard.api.scopes import Scope, includes
from packmule.dashboard.viewer import Role, Viewer
from packmule.jobs import keys, schedule_store
from packmule.jobs.client import Client
from packmule.jobs.flow import Flow
from packmule.jobs.read_tokens import REALM
from packmule.jobs.schedule import schedule
from packmule.observe import audit
from packmule.tests.command_line import until
from packmule.tests.dashboard.api_site import NAME, Api, echo, http_client, served_api

OWN = {"Cookie": "session=1", "Sec-Fetch-Site": "same-origin"}


def test_an_operation_needs_its_scope_and_no_other_gives_it(api: Api) -> None:
    for scope in Scope:
        with api.as_(scope) as http:
            for operation in ENDPOINTS:
                assert operation.scope is not None
                allowed = includes(frozenset([scope]), operation.scope)
                with http.stream(operation.method, path_of(operation)) as answer:
                    where = (scope, operation.method, operation.path, answer.status_code)
                    assert (answer.status_code != 403) == allowed, where
                    assert answer.status_code not in (401, 500), where


def test_an_operation_is_closed_to_whoever_has_no_token(api: Api) -> None:
    whole = api.http.headers["authorization"]
    for bad in (
        "Bearer pm_",
        "Bearer pm_" + "0" * 49,
        "Bearer",
        "Basic YTpi",
        whole[:-1],
        whole.replace("pm_", ""),
    ):
        with http_client(api.site.address, "") as http:
            http.headers["Authorization"] = bad
            for operation in ENDPOINTS:
                answer = http.request(operation.method, path_of(operation))
                assert answer.status_code == 401, (bad, operation.path, answer.text)
                assert answer.headers["www-authenticate"].startswith("Bearer")
                assert answer.headers["content-type"] == "application/problem+json"


def test_a_session_reads_and_changes_nothing(api: Api) -> None:
    api.site.viewer = Viewer("ada", Role.ADMIN, may_see_payloads=True, session="s1")
    with http_client(api.site.address, "") as http:
        http.headers.update(OWN)
        for operation in ENDPOINTS:
            with http.stream(operation.method, path_of(operation)) as answer:
                fitting = (200, 404) if operation.method == "GET" else (401,)
                assert answer.status_code in fitting, (operation.method, operation.path)


def path_of(operation: Endpoint, id: str = "x") -> str:
    return re.sub(r"\{\w+\}", id, operation.path)


def test_a_session_without_the_right_sees_no_payloads(api: Api) -> None:
    id = api.enqueue("report", "secret month")
    with http_client(api.site.address, "") as http:
        http.headers.update(OWN)
        api.site.viewer = Viewer("ada", Role.OPERATOR, may_see_payloads=False, session="s1")
        assert "secret month" not in http.get(f"/jobs/{id}").text
        api.site.viewer = Viewer("ada", Role.VIEWER, may_see_payloads=True, session="s1")
        assert "secret month" in http.get(f"/jobs/{id}").text
        masked = api.enqueue("echo", {"password": "s3cret"})
        assert "s3cret" not in http.get(f"/jobs/{masked}").text + http.get("/jobs").text
        assert http.get("/jobs", params={"arg": "value=a"}).status_code == 403
        http.headers["Sec-Fetch-Site"] = "cross-site"
        assert http.post("/jobs", json={"job": NAME + "report", "args": ["a"]}).status_code == 403


def test_a_session_gets_no_more_by_the_api_than_by_pages(api: Api) -> None:
    """Secrets are masked in results, in outcomes of batches and in schedules; messages need the right."""
    secret = {"password": "s3cret"}
    id = api.enqueue("echo", secret)
    batch = api.http.post("/batches", json={"collect": True}).json()["batch"]
    api.http.post(f"/batches/{batch}/jobs", json={"job": NAME + "echo", "calls": [[secret]]})
    talked = api.enqueue("talks", [])
    api.work()
    table = {"job": NAME + "echo", "cron": "0 0 1 1 *", "kwargs": {"value": secret}}
    schedule_store.put(api.redis, schedule("nightly", table))
    paths = (f"/jobs/{id}/stream", f"/batches/{batch}/results", "/schedules", "/schedules/nightly")
    with http_client(api.site.address, "") as http:
        http.headers.update(OWN)
        api.site.viewer = Viewer("ada", Role.ADMIN, may_see_payloads=True, session="s1")
        for path in paths:
            assert "s3cret" in api.http.get(path).text, path
            answer = http.get(path)
            assert answer.status_code == 200, path
            assert "(hidden)" in answer.text, path
            assert "s3cret" not in answer.text, path
        assert "half" in http.get(f"/jobs/{talked}").text + http.get(f"/jobs/{talked}/stream").text
        api.site.viewer = Viewer("eve", Role.ADMIN, may_see_payloads=False, session="s2")
        for path in (f"/jobs/{talked}", f"/jobs/{talked}/stream", "/jobs"):
            assert "half" not in http.get(path).text, path


def test_a_flow_shows_no_arguments_of_stock_rq_to_whoever_may_only_read(api: Api) -> None:
    with Flow("f", client=api.redis) as flow:
        node = flow.add(echo.call("a"))
    api.redis.hset(keys.job_key(str(node)), "description", "shop.report('s3cret')")
    assert "s3cret" in api.http.get(f"/flows/{flow.id}").text
    with api.as_("read") as http:
        nodes = http.get(f"/flows/{flow.id}").json()["nodes"]
    assert [each["calls"] for each in nodes] == ["shop.report"]


def test_payloads_are_hidden_from_whoever_may_only_read(api: Api) -> None:
    """Each place in which a text of a job's own could be."""
    secret = "s3cret-argument"
    ids = [api.enqueue("echo", secret), api.enqueue("boom")]
    api.work()
    fingerprint = api.http.get("/errors").json()[0]["fingerprint"]
    places = [
        *(f"/jobs/{id}" for id in ids),
        *(f"/jobs/{id}/wait" for id in ids),
        *(f"/jobs/{id}/steps" for id in ids),
        "/jobs",
        "/errors",
        f"/errors/{fingerprint}",
        "/schedules",
        "/workers",
    ]
    texts = {path: api.http.get(path).text for path in places}
    assert any(secret in text for text in texts.values())
    assert any("the shelf is empty" in text for text in texts.values())
    with api.as_("read", "act", "enqueue", "admin") as http:
        for path in places:
            answer = http.get(path)
            assert answer.status_code == 200, path
            assert secret not in answer.text, path
            assert "the shelf is empty" not in answer.text, path
        shown = http.get(f"/jobs/{ids[0]}").json()
        assert shown["hidden"] == ["args", "kwargs", "description", "result", "error"]
        for path in (f"/jobs/{ids[0]}/logs", f"/jobs/{ids[0]}/output", "/jobs?arg=value=x", "/jobs?error=X"):
            assert http.get(path).status_code == 403, path


def test_a_read_token_is_good_for_its_one_job(api: Api) -> None:
    """Each operation with the token of another job, and with that of a batch."""
    mine, other = api.enqueue("echo", "mine"), api.enqueue("echo", "other")
    batch = api.http.post("/batches", json={}).json()["batch"]
    lent = api.http.post(f"/jobs/{mine}/read-token", json={"output": True}).json()
    assert lent["stream"] == f"/api/v1/jobs/{mine}/stream"
    allowed = set()
    with http_client(api.site.address, lent["token"]) as http:
        for operation in ENDPOINTS:
            for id in (mine, other, batch):
                address = path_of(operation, id) + "?timeout=0.1" * operation.path.endswith("/wait")
                with http.stream(operation.method, address) as answer:
                    assert answer.status_code not in (401, 500)
                    if answer.status_code != 403:
                        allowed.add((operation.method, operation.path, id))
    assert allowed == {
        ("GET", "/jobs/{id}", mine),
        ("GET", "/jobs/{id}/wait", mine),
        ("GET", "/jobs/{id}/output", mine),
        ("GET", "/jobs/{id}/stream", mine),
    }


def test_a_read_token_shows_no_arguments_and_a_result_only_with_output(api: Api) -> None:
    id = api.enqueue("echo", "argument")
    api.work()
    for output in (False, True):
        token = api.http.post(f"/jobs/{id}/read-token", json={"output": output}).json()["token"]
        with http_client(api.site.address, token) as http:
            shown = http.get(f"/jobs/{id}").json()
        assert (shown["args"], shown["kwargs"]) == ([], {})
        assert shown["result"] == ("argument" if output else None)
    with api.as_("read") as http:
        assert http.post(f"/jobs/{id}/read-token", json={"output": True}).status_code == 403
        assert http.post(f"/jobs/{id}/read-token", json={"output": False}).status_code == 201
        assert http.post("/jobs/gone/read-token", json={}).status_code == 404


def test_a_handle_lends_read_tokens(api: Api) -> None:
    handle = Client(api.redis).enqueue(echo, "a")
    with http_client(api.site.address, handle.read_token(60)) as http:
        assert http.get(f"/jobs/{handle}").json()["hidden"] == ["args", "kwargs", "description", "error"]


def test_only_a_read_token_may_be_in_a_url(api: Api) -> None:
    id = api.enqueue("echo", "a")
    api.work()
    lent = api.http.post(f"/jobs/{id}/read-token", json={}).json()["token"]
    whole = api.http.headers["authorization"][7:]
    with http_client(api.site.address, "") as http:
        assert http.get(f"/jobs/{id}/stream", params={"token": lent}).status_code == 200
        assert http.get(f"/jobs/{id}/stream", params={"token": whole}).status_code == 401
        assert http.get("/jobs", params={"token": whole}).status_code == 401
        assert http.get("/queues", params={"token": lent}).status_code == 401


def test_a_revoked_token_ends_soon(api: Api) -> None:
    with api.as_("read") as http:
        assert http.get("/queues").status_code == 200
        Tokens(api.redis, REALM).revoke("read")
        began = time.monotonic()
        until(lambda: http.get("/queues").status_code == 401, "the end of the token")
        assert time.monotonic() - began < TRUSTED_FOR + 30


def test_a_token_that_asks_too_often_is_told_when_to_come_back(client: Redis) -> None:
    with served_api(client, ApiOptions(rate=Rate.parse("60/h burst 3"))) as api:
        answers = [api.http.get("/queues") for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
        assert [re.search(r"r=(\d+)", answer.headers["ratelimit"])[1] for answer in answers[:3]] == [
            "2",
            "1",
            "0",
        ]
        assert answers[0].headers["ratelimit-policy"] == '"token";q=3;w=180'
        assert 1 <= int(answers[3].headers["retry-after"]) <= 61
        assert answers[3].json()["type"] == "urn:packmule:TooManyRequests"
        with api.as_("read") as other:
            assert other.get("/queues").status_code == 200


def test_an_act_is_audited_with_its_token_and_address(api: Api) -> None:
    id = api.enqueue("report", "a")
    with api.as_("act") as http:
        http.post(f"/jobs/{id}/cancel", json={})
        http.post("/jobs/gone/retry")
    found = [each for each in audit.read(api.redis) if each.action.startswith("job")]
    assert [(each.who, each.where, each.action, dict(each.subject)) for each in found] == [
        ("token act", "127.0.0.1", "job cancel", {"id": id}),
        ("token act", "127.0.0.1", "job retry", {"id": "gone", "error": "NoSuchJob"}),
    ]


def test_each_item_of_many_has_an_outcome_of_its_own(api: Api) -> None:
    ids = [api.enqueue("report", "a"), "gone", api.enqueue("report", "b")]
    api.http.post(f"/jobs/{ids[2]}/cancel", json={})
    answer = api.http.post("/acts", json={"act": "cancel", "ids": ids}).json()
    assert answer["done"] == [ids[0], ids[2]] or answer["done"] == [ids[0]]
    assert "gone" in [each["id"] for each in answer["refused"]]
    for body in (
        {"act": "explode", "ids": ["a"]},
        {"act": "retry", "ids": []},
        {"act": "retry", "ids": ["a"] * 1001},
    ):
        assert api.http.post("/acts", json=body).status_code in (409, 422)


def test_no_token_is_ever_logged(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    id = api.enqueue("echo", "a")
    lent = api.http.post(f"/jobs/{id}/read-token", json={}).json()["token"]
    with caplog.at_level(logging.DEBUG, "packmule"):
        with http_client(api.site.address, "") as http:
            http.get(f"/jobs/{id}/wait", params={"token": lent, "timeout": "0"})
            http.get("/jobs/gone/stream", params={"token": lent})
        api.redis.set("rq:job:broken", "not a hash")
        api.http.get("/jobs/broken")
    whole = api.http.headers["authorization"][7:]
    ours = [record for record in caplog.records if record.name.startswith(("packmule", "uvicorn"))]
    assert not [record for record in ours if lent in record.getMessage() or whole in record.getMessage()]


def test_pages_of_named_origins_may_ask_and_no_others(client: Redis) -> None:
    options = ApiOptions(origins=("https://shop.example.com",))
    with served_api(client, options) as api:
        asked = {"Origin": "https://shop.example.com", "Access-Control-Request-Method": "POST"}
        answer = api.http.options("/jobs", headers=asked)
        assert answer.status_code == 204
        assert answer.headers["access-control-allow-origin"] == "https://shop.example.com"
        assert "Authorization" in answer.headers["access-control-allow-headers"]
        assert api.http.get("/queues", headers=asked).headers["vary"].find("Origin") >= 0
        for origin in ("https://evil.example.com", "null", "https://shop.example.com.evil.com"):
            other = api.http.get("/queues", headers={"Origin": origin})
            assert "access-control-allow-origin" not in other.headers
    with served_api(client) as api:
        closed = api.http.options("/jobs", headers=asked)
        assert "access-control-allow-origin" not in closed.headers
