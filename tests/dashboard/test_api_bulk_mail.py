"""Bulk sends by HTTP: checked, previewed and enqueued from uploads or rows; counts and results by right."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from packmule.dashboard.api import bulk_mail
from packmule.dashboard.api.options import ApiOptions
from packmule.jobs import keys, reader
from packmule.jobs.batch import Batch
from packmule.jobs.email.bulk.results import chunk_id
from packmule.jobs.storage import Storage
from packmule.tests.dashboard.api_site import Api, served_api

ROWS = [{"email": f"user{n}@example.org", "name": f"N{n}"} for n in range(60)]


@pytest.fixture
def api(client: Redis, tmp_path: Path) -> Iterator[Api]:
    """The API with a storage and a template called hello."""
    (tmp_path / "hello.txt").write_text("Hello {{ name }}.")
    options = ApiOptions(
        storage_url=str(tmp_path / "files"),
        max_file_bytes=100_000,
        templates=str(tmp_path),
        mail_from="us@example.org",
    )
    with served_api(client, options) as found:
        yield found


def mail(**changes: object) -> dict[str, object]:
    return {"recipients": ROWS, "subject": "For {{ name }}", "template": "hello", **changes}


def test_rows_are_enqueued_and_read(api: Api, client: Redis) -> None:
    answer = api.http.post("/mail/bulk", json=mail(key="spring", options={"queue": "low"}))
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert (made["recipients"], made["bad"], made["sent_before"], made["key"]) == (60, 0, 0, "spring")
    assert answer.headers["location"].endswith(f"/mail/bulk/{made['id']}")
    assert Batch(client, made["id"]).state().counts.total == 2
    info = reader.read(client, chunk_id(made["id"], 0))
    assert info.kwargs["rows"] == ROWS[:50]
    found = api.http.get(f"/mail/bulk/{made['id']}").json()
    assert (found["total"], found["waiting"], found["state"], found["subject"]) == (
        60,
        60,
        "running",
        "For {{ name }}",
    )
    assert [each["id"] for each in api.http.get("/mail/bulk").json()] == [made["id"]]
    results = api.http.get(f"/mail/bulk/{made['id']}/results")
    assert results.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(results.text)))
    assert [each["recipient"] for each in rows] == [each["email"] for each in ROWS]
    assert api.http.post(f"/batches/{made['id']}/pause").status_code == 200
    assert api.http.get(f"/mail/bulk/{made['id']}").json()["state"] == "paused"


def test_an_upload_is_previewed_and_enqueued(api: Api, client: Redis) -> None:
    content = b"E-Mail;name\nada@example.org;Ada\nbad;B\nbob@example.org;Bob\n"
    path = api.http.put("/files/list.csv", content=content).json()["path"]
    shown = api.http.post("/mail/bulk/preview", json=mail(recipients=path, max_bad=0.5))
    assert shown.status_code == 200, shown.text
    report = shown.json()
    assert [each["subject"] for each in report["samples"]] == ["For Ada", "For Bob"]
    assert report["samples"][0]["text"] == "Hello Ada."
    assert report["checked"]["bad_rows"][0]["line"] == 3
    assert client.keys("rq:job:*") == []
    assert api.http.post("/mail/bulk", json=mail(recipients=path, max_bad=0.5)).json()["recipients"] == 2


def test_mistakes_are_problems_and_enqueue_nothing(api: Api, client: Redis, tmp_path: Path) -> None:
    Storage(str(tmp_path / "files")).write_bytes("secret/list.csv", b"email\nada@example.org\n")
    for changes, status, kind in (
        ({"recipients": []}, 422, "UnreadableList"),
        ({"recipients": [{"email": "nobody"}]}, 422, "TooManyBad"),
        ({"recipients": [{"name": "Ada"}]}, 422, "NoColumn"),
        ({"recipients": "uploads/gone.csv"}, 404, "MissingFile"),
        ({"recipients": "secret/list.csv"}, 422, "NotUploaded"),
        ({"recipients": "uploads/../secret/list.csv"}, 422, "OutsideStorage"),
        ({"recipients": "/etc/passwd"}, 422, "NotUploaded"),
        ({"recipients": [ROWS[0]] * 10_001}, 422, "InvalidBody"),
        ({"recipients": 7}, 422, "InvalidBody"),
        ({"template": "nothere"}, 422, "InvalidTemplate"),
        ({"template": "../hello"}, 422, "InvalidTemplate"),
        ({"subject": "a\r\nBcc: b@example.org"}, 422, "InvalidMessage"),
        ({"sender": "nobody"}, 422, "InvalidAddress"),
        ({"column": "gone"}, 422, "NoColumn"),
        ({"max_bad": 2}, 422, "InvalidBody"),
        ({"key": "a\nb"}, 422, "InvalidKey"),
        ({"options": {"delay": "soon"}}, 422, "InvalidOption"),
        ({"options": {"job_id": "x"}}, 422, "InvalidOption"),
        ({"nonsense": 1}, 422, "InvalidBody"),
    ):
        answer = api.http.post("/mail/bulk", json=mail(**changes))
        assert answer.status_code == status, (changes, answer.text)
        assert answer.json()["type"].endswith(f":{kind}"), (changes, answer.text)
        assert str(tmp_path) not in answer.text
    assert client.keys("rq:job:*") == []
    for path in ("/mail/bulk/nothing", "/mail/bulk/nothing/results"):
        assert api.http.get(path).status_code == 404


def test_only_so_many_lists_are_read_at_once(api: Api) -> None:
    for _ in range(bulk_mail.AT_ONCE):
        assert bulk_mail._reading.acquire(blocking=False)
    try:
        answer = api.http.post("/mail/bulk", json=mail())
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    finally:
        for _ in range(bulk_mail.AT_ONCE):
            bulk_mail._reading.release()
    assert api.http.post("/mail/bulk", json=mail()).status_code == 201
    assert api.http.post("/mail/bulk", json=mail(template="nothere")).status_code == 422
    assert bulk_mail._reading._value == bulk_mail.AT_ONCE


def test_who_may_not_see_payloads_sees_counts_alone(api: Api, client: Redis) -> None:
    id = api.http.post("/mail/bulk", json=mail()).json()["id"]
    with api.as_("read") as http:
        found = http.get(f"/mail/bulk/{id}").json()
        assert (found["total"], found["subject"], found["source"]) == (60, "", "")
        assert http.get(f"/mail/bulk/{id}/results").status_code == 403
        assert http.post("/mail/bulk", json=mail()).status_code == 403
        assert http.post("/mail/bulk/preview", json=mail()).status_code == 403
    with api.as_("enqueue") as http:
        assert http.post("/mail/bulk", json=mail(key="another")).status_code == 201
        assert http.get(f"/mail/bulk/{id}").status_code == 403
    assert client.exists(keys.batch_key(id))
