"""Bulk actions by HTTP: counted, begun once, watched, stopped, undone; and what tokens may not do."""

from __future__ import annotations

from typing import Any

import pytest

from packmule.coordination.sessions.tokens import Tokens
from packmule.dashboard.bulk import performing, record
from packmule.dashboard.bulk.record import NotNow
from packmule.dashboard.bulk.rights import refuse_without_right
from packmule.dashboard.users.store import Users
from packmule.dashboard.users.user import User
from packmule.dashboard.viewer import Role, Viewer
from packmule.jobs import reader
from packmule.jobs.read_tokens import REALM
from packmule.observe import audit
from packmule.tests.command_line import until
from packmule.tests.dashboard.api_site import Api
from packmule.tests.dashboard.test_bulk import is_performed_here


def failed(api: Api, number: int) -> list[str]:
    ids = [api.enqueue("boom") for _ in range(number)]
    api.work()
    return ids


def over(api: Api, id: str) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def is_over() -> bool:
        found.update(api.http.get(f"/bulk-actions/{id}").json())
        return found["state"] not in ("running", "stopping") and not is_performed_here(id)

    until(is_over, "the end of the bulk action")
    return found


def test_what_a_filter_means_is_counted_then_done_and_read(api: Api) -> None:
    ids = failed(api, 12)
    asked = {"act": "retry", "filter": "name:boom status:failed"}
    counted = api.http.post("/bulk-actions/count", json=asked).json()
    assert (counted["count"], counted["is_partial"]) == (12, False)
    assert set(counted["examples"]) <= set(ids)
    assert {reader.read(api.redis, id).status for id in ids} == {"failed"}
    begun = api.http.post("/bulk-actions", json={**asked, "at": counted["at"], "reason": "<late>"})
    assert begun.status_code == 202
    id = begun.json()["id"]
    assert begun.headers["location"] == f"/api/v1/bulk-actions/{id}"
    found = over(api, id)
    assert (found["state"], found["done"], found["matched"], found["refused"]) == ("done", 12, 12, {})
    assert (found["who"], found["reason"], found["filter"]) == ("token everything", "<late>", asked["filter"])
    assert {reader.read(api.redis, id).status for id in ids} == {"queued"}
    assert api.http.get("/bulk-actions").json()[0]["id"] == id
    actions = [each.action for each in audit.read(api.redis) if each.subject.get("bulk") == id]
    assert actions == ["bulk retry", "job retry", "bulk act ended"]
    assert {each.who for each in audit.read(api.redis)} == {"token everything"}


def test_a_deletion_is_undone_and_a_stopped_action_goes_on(api: Api) -> None:
    ids = failed(api, 3)
    id = api.http.post("/bulk-actions", json={"act": "delete", "filter": "status:failed"}).json()["id"]
    found = over(api, id)
    assert found["undo_until"] is not None
    assert reader.read_if_there(api.redis, ids[0]) is None
    assert api.http.post(f"/bulk-actions/{id}/stop").status_code == 409
    assert api.http.post(f"/bulk-actions/{id}/undo").status_code == 200
    found = over(api, id)
    assert (found["phase"], found["undone"], found["undo_until"]) == ("undo", 3, None)
    assert reader.read(api.redis, ids[0]).status == "failed"
    assert api.http.post(f"/bulk-actions/{id}/undo").status_code == 409
    record.change(api.redis, id, phase="act", state="running")  # as if its process had died
    assert api.http.get(f"/bulk-actions/{id}").json()["state"] == "lost"
    assert api.http.post(f"/bulk-actions/{id}/resume").status_code == 200
    over(api, id)
    actions = [each.action for each in audit.read(api.redis) if each.action.startswith("bulk ")]
    assert [each for each in actions if "ended" not in each] == [
        "bulk delete",
        "bulk stop",
        "bulk undo",
        "bulk undo",
        "bulk go on",
    ]


def test_a_request_that_is_sent_again_begins_nothing_again(api: Api) -> None:
    ids = failed(api, 2)
    key = {"Idempotency-Key": "once"}
    asked = {"act": "retry", "filter": "name:boom"}
    first = api.http.post("/bulk-actions", json=asked, headers=key).json()["id"]
    over(api, first)
    api.work()
    again = api.http.post("/bulk-actions", json=asked, headers=key)
    assert (again.status_code, again.json()["id"]) == (202, first)
    assert {reader.read(api.redis, id).status for id in ids} == {"failed"}, "they were retried twice"
    other = api.http.post("/bulk-actions", json={**asked, "filter": "name:bo"}, headers=key)
    assert (other.status_code, other.json()["type"]) == (422, "urn:packmule:KeyReused")
    # The process died before it could keep its answer.
    key = {"Idempotency-Key": "died"}
    before = len(record.latest(api.redis))
    id = api.http.post("/bulk-actions", json=asked, headers=key).json()["id"]
    over(api, id)
    api.redis.delete(f"pm:idempotent:{id}")
    assert api.http.post("/bulk-actions", json=asked, headers=key).json()["id"] == id
    assert len(record.latest(api.redis)) == before + 1
    over(api, id)


def test_a_record_that_is_there_stays_as_it_is(api: Api) -> None:
    for text in ("name:a", "name:b"):
        record.create(api.redis, "retry", text, 1.0, 0, False, id="chosen", who="ada", where="")
    assert record.read(api.redis, "chosen").text == "name:a"
    assert [each.id for each in record.latest(api.redis)] == ["chosen"]


@pytest.mark.parametrize(
    ("body", "status", "pointer"),
    [
        ({"act": "explode", "filter": "name:a"}, 422, None),
        ({"act": "retry", "filter": "x:y"}, 422, "#/filter"),
        ({"act": "retry", "filter": "status:queued"}, 422, "#/filter"),
        ({"act": "retry", "filter": 'name:"a'}, 422, "#/filter"),
        ({"act": "retry", "filter": "args.password:x"}, 422, "#/filter"),
        ({"act": "retry", "filter": "a" * 2001}, 422, "#/filter"),
        ({"act": "delete", "filter": ""}, 422, "#/all"),
        ({"act": "delete", "filter": "  "}, 422, "#/all"),
        ({"act": "retry", "filter": "name:a", "at": "soon"}, 422, "#/at"),
        ({"act": "retry", "filter": "name:a", "reason": "x" * 201}, 422, "#/reason"),
        ({"act": "retry"}, 422, "#/filter"),
        ({"act": "retry", "filter": "name:a", "more": 1}, 422, "#/more"),
    ],
)
def test_a_body_that_makes_no_sense_begins_nothing(
    api: Api, body: dict[str, Any], status: int, pointer: str | None
) -> None:
    answer = api.http.post("/bulk-actions", json=body)
    assert answer.status_code == status, answer.text
    assert pointer is None or [each["pointer"] for each in answer.json()["errors"]] == [pointer]
    assert api.http.get("/bulk-actions").json() == []


@pytest.mark.parametrize("at", [1e308, -1e308, 0, 5e9])
def test_an_instant_of_no_dry_run_is_now(api: Api, at: float) -> None:
    failed(api, 1)
    id = api.http.post("/bulk-actions", json={"act": "retry", "filter": "since:1h", "at": at}).json()["id"]
    assert over(api, id)["done"] == 1


def test_an_empty_filter_means_all_only_if_that_is_said(api: Api) -> None:
    ids = failed(api, 2)
    begun = api.http.post("/bulk-actions", json={"act": "delete", "filter": "", "all": True})
    over(api, begun.json()["id"])
    assert [reader.read_if_there(api.redis, id) for id in ids] == [None, None]


def test_scopes_say_who_counts_acts_and_sees_values(api: Api) -> None:
    job = api.enqueue("report", "s3cret")
    secret = {"act": "cancel", "filter": "args.month:s3cret"}
    id = api.http.post("/bulk-actions", json=secret).json()["id"]
    over(api, id)
    assert reader.read(api.redis, job).status == "canceled"
    with api.as_("read") as reading, api.as_("act") as acting:
        assert reading.post("/bulk-actions", json=secret).status_code == 403
        assert reading.post("/bulk-actions/count", json=secret).status_code == 403
        for verb in ("stop", "resume", "undo"):
            assert reading.post(f"/bulk-actions/{id}/{verb}").status_code == 403
        assert reading.get(f"/bulk-actions/{id}").json()["filter"] == "args.month:…"
        assert "s3cret" not in reading.get("/bulk-actions").text
        for path in ("/bulk-actions", "/bulk-actions/count"):
            for words in ("args.month:a", "error:ValueError"):
                answer = acting.post(path, json={"act": "retry", "filter": words})
                assert (answer.status_code, answer.json()["type"]) == (403, "urn:packmule:MissingScope")
        assert acting.get("/bulk-actions").status_code == 403
    assert "s3cret" not in str(list(audit.read(api.redis)))
    api.site.viewer = Viewer("eve", Role.VIEWER, session="s1")
    with api.as_copy() as page:
        del page.headers["authorization"]
        page.headers.update({"Cookie": "any=x", "Sec-Fetch-Site": "same-origin"})
        assert page.get(f"/bulk-actions/{id}").json()["filter"] == "args.month:…"
        assert page.post("/bulk-actions", json=secret).status_code == 401


def test_a_token_that_is_revoked_or_may_not_act_goes_on_with_nothing(api: Api) -> None:
    api.token("read", name="reader")
    api.token("act", name="worker")
    refuse_without_right(api.redis, "token worker")
    refuse_without_right(api.redis, "token everything")
    for who in ("token reader", "token gone"):
        with pytest.raises(NotNow, match=f"{who} may no longer act on jobs"):
            refuse_without_right(api.redis, who)
    Tokens(api.redis, REALM).revoke("worker")
    with pytest.raises(NotNow):
        refuse_without_right(api.redis, "token worker")
    refuse_without_right(api.redis, "ada")
    Users(api.redis).add(User("bob", Role.OPERATOR))
    refuse_without_right(api.redis, "bob")
    with pytest.raises(NotNow):
        refuse_without_right(api.redis, "ada")
    failed(api, 1)
    id = record.create(api.redis, "retry", "name:boom", 2e9, 1, False, who="token worker", where="192.0.2.7")
    performing.begin(api.redis, id)
    found = over(api, id)
    assert (found["state"], found["done"]) == ("failed", 0)
    assert "token worker may no longer act" in found["fault"]


def test_an_unknown_action_is_said_to_be(api: Api) -> None:
    for method, path in (("GET", ""), ("POST", "/stop"), ("POST", "/resume"), ("POST", "/undo")):
        answer = api.http.request(method, f"/bulk-actions/gone%1b{path}")
        assert (answer.status_code, answer.json()["type"]) == (404, "urn:packmule:NoSuchBulk")
