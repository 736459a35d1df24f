"""Uploads that are sent through a pipeline by HTTP: streamed, bounded, and once if they are sent again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import redis
from redis import Redis

from packmule.dashboard.api import pipelines
from packmule.dashboard.api.idempotency import Idempotency
from packmule.dashboard.api.options import ApiOptions
from packmule.jobs import batch_state, context
from packmule.jobs.pipelines import Pipeline
from packmule.jobs.storage import Storage
from packmule.tests.command_line import DEADLINE
from packmule.tests.dashboard.api_site import Api, served_api
from packmule.tests.worker import pipeline_jobs

KEY = {"Idempotency-Key": "once"}


@pytest.fixture
def api(client: Redis, tmp_path: Path):
    options = ApiOptions(
        storage_url=str(tmp_path / "files"), max_file_bytes=100_000, modules=(pipeline_jobs.__name__,)
    )
    with served_api(client, options) as found:
        yield found


def send(
    api: Api, content: bytes = b"one\ntwo", name: str = "a.txt", pipeline: str = "simple", **headers: str
):
    return api.http.post(f"/pipelines/{pipeline}", files={"file": (name, content)}, headers=headers)


def uploads(tmp_path: Path) -> list[str]:
    return Storage(str(tmp_path / "files")).names("uploads/")


def flows(api: Api) -> int:
    return len(batch_state.latest(api.redis, 100))


def test_an_upload_is_sent_through_a_pipeline(api: Api, tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "files"))
    context.provide(storage)
    assert api.http.get("/pipelines").json() == [{"name": "simple", "steps": ["count", "upper", "parts"]}]
    answer = send(api)
    assert answer.status_code == 201, answer.text
    run = answer.json()
    assert answer.headers["Location"].endswith(f"/flows/{run['flow']}")
    assert storage.read_bytes(run["source"]) == b"one\ntwo"
    api.work()
    assert storage.exists(run["manifest"])
    assert api.http.get(f"/flows/{run['flow']}").json()["name"] == "simple: a.txt"


def test_the_same_upload_with_its_key_is_sent_once(api: Api, tmp_path: Path) -> None:
    first = send(api, **KEY)
    with ThreadPoolExecutor(4) as threads:
        again = list(threads.map(lambda _: send(api, **KEY), range(4)))
    assert [each.json() for each in again] == [first.json()] * 4
    assert flows(api) == 1
    assert uploads(tmp_path) == [first.json()["source"]]
    for other in (send(api, b"other", **KEY), send(api, name="b.txt", **KEY)):
        assert (other.status_code, other.json()["type"]) == (422, "urn:packmule:KeyReused")
    assert flows(api) == 1
    assert len(uploads(tmp_path)) == 1
    context.provide(Storage(str(tmp_path / "files")))
    api.work()
    assert send(api, **KEY).json() == first.json()  # though that has ended
    assert send(api).json()["flow"] != first.json()["flow"]


def test_the_same_upload_sent_several_times_at_once_is_one_flow_and_one_file(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_stored, begin = Barrier(4), Idempotency.begin

    def together(*given: Any) -> Any:
        all_stored.wait(DEADLINE)
        found = begin(*given)
        all_stored.wait(DEADLINE)
        return found

    monkeypatch.setattr(Idempotency, "begin", together)
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: send(api, **KEY), range(4)))
    runs = [each.json() for each in answers]
    assert runs == [runs[0]] * 4
    assert flows(api) == 1
    assert uploads(tmp_path) == [runs[0]["source"]]
    assert [each.name for each in (tmp_path / "files" / "uploads").iterdir()] == [
        runs[0]["source"].split("/")[1]
    ]


def test_a_lost_reply_to_the_first_of_a_key_costs_no_file(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = Idempotency.begin
    with monkeypatch.context() as patched:
        patched.setattr(Idempotency, "begin", lambda *given: (begin(*given), begin(*given))[1])
        first = send(api, **KEY)
    assert uploads(tmp_path) == [first.json()["source"]]

    def lost(*given: Any) -> None:
        begin(*given)
        raise redis.ConnectionError("the reply is lost")

    with monkeypatch.context() as patched:
        patched.setattr(Idempotency, "begin", lost)
        assert send(api, **{"Idempotency-Key": "lost"}).status_code == 503
    again = send(api, **{"Idempotency-Key": "lost"}).json()
    assert again["source"] in uploads(tmp_path)
    assert flows(api) == 2


def test_a_process_that_died_before_the_flow_was_there_is_made_up_for(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Pipeline, "enqueue", lambda *_, **__: 1 / 0)
        assert send(api, **KEY).status_code == 500
    assert flows(api) == 0
    answer = send(api, **KEY)
    assert (answer.status_code, flows(api)) == (201, 1)
    assert uploads(tmp_path) == [answer.json()["source"]]


def test_what_can_not_be_sent_leaves_nothing(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = send(api, pipeline="intake")
    assert (unknown.status_code, unknown.json()["detail"]) == (
        404,
        "there is no pipeline 'intake': there are simple",
    )
    assert send(api, b"x" * 200_000).status_code == 413
    assert send(api, **{"Idempotency-Key": "\x7f"}).status_code in (400, 422)
    with api.as_("read") as reader:
        assert reader.post("/pipelines/simple", files={"file": ("a", b"x")}).status_code == 403
    assert api.http.post("/pipelines/simple", json={}).status_code == 415
    assert api.http.post("/pipelines/simple", files={"other": ("a", b"x")}).status_code == 422
    monkeypatch.setattr(pipelines, "known", lambda *_: {"simple": Pipeline("simple", pipeline_jobs.astray)})
    astray = send(api)
    assert (astray.status_code, astray.json()["type"]) == (422, "urn:packmule:UnknownQueue")
    assert uploads(tmp_path) == []
    assert flows(api) == 0
