"""What a job's annotations mark as secret is on no page and in no answer, and stays where a form is sent."""

from __future__ import annotations

import json
from typing import Annotated

import msgspec
import pytest
from redis import Redis

from packmule import Secret, job
from packmule.dashboard.mcp import reading
from packmule.dashboard.viewer import Role, Viewer
from packmule.jobs import reader, registry, schedule_store
from packmule.jobs.masking import MASK
from packmule.jobs.schedule import schedule
from packmule.tests.dashboard.api_site import Api, http_client
from packmule.tests.dashboard.asking import always, ask, guarded
from packmule.tests.dashboard.pages_of_jobs import Pages, text_of
from packmule.tests.jobs.ending import end

pytestmark = pytest.mark.usefixtures("produce")


class Lock(msgspec.Struct):
    door: str
    code: Annotated[str, Secret]


@job
def open_up(user: str, lock: Lock, word: Annotated[str, Secret] = "") -> Annotated[str, Secret]:
    return word


CALL = ("ada", {"door": "north", "code": "hunter2!"})
NAME = open_up.job.name


@pytest.fixture
def id(claims: object) -> str:
    """A job that finished; it named one secret by position, in a part, and another by name."""
    found = str(open_up.enqueue(*CALL, word="hunter3!"))  # type: ignore[arg-type]
    end(claims)
    return found


@pytest.fixture(params=["registered here", "only enqueued elsewhere"])
def registered(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the process that shows the job has imported it."""
    is_here = request.param == "registered here"
    if not is_here:
        others = {name: each for name, each in registry._registered.items() if name != NAME}
        monkeypatch.setattr(registry, "_registered", others)
    return is_here


def test_the_pages_of_a_job_show_none(pages: Pages, client: Redis, id: str, registered: bool) -> None:
    for path in (f"/jobs/{id}", "/jobs"):
        page = text_of(pages.get(path))
        assert "hunter" not in page
        assert MASK in page
    assert "north" in text_of(pages.get(f"/jobs/{id}"))
    assert id not in pages.get("/jobs", q="args.word:hunter3!")
    assert id in pages.get("/jobs", q="args.user:ada" if registered else "args.0:ada")


def test_a_copy_is_made_without_seeing_them(pages: Pages, client: Redis, id: str) -> None:
    form = pages.get("/jobs/new", copy=id)
    assert "hunter" not in form
    lock = json.dumps({"door": "south", "code": MASK})
    given = {"arg:user": "bob", "arg:lock": lock, "arg:word": MASK, "option:queue": "default"}
    assert "The job is enqueued." in pages.post("/jobs/new", copy=id, job_id="copied", **given)
    made = reader.read(client, "copied")
    values = [*made.args, *made.kwargs.values()]
    assert values == ["bob", {"door": "south", "code": "hunter2!"}, "hunter3!"]


def test_the_pages_of_rq_dashboard_show_none(client: Redis, id: str, registered: bool) -> None:
    site = guarded(client, identify=always())
    for path in (f"job/{id}", "jobs/default/finished/8/asc/1"):
        answer = ask(site, f"/rq/0/data/{path}.json")
        assert answer.status == 200
        assert "hunter" not in answer.text


def test_the_api_shows_them_to_tokens_alone(api: Api, id: str, registered: bool) -> None:
    for path in (f"/jobs/{id}", "/jobs"):
        assert "hunter2!" in api.http.get(path).text
    with http_client(api.site.address, "") as http:
        http.headers.update({"Cookie": "session=1", "Sec-Fetch-Site": "same-origin"})
        api.site.viewer = Viewer("ada", Role.ADMIN, may_see_payloads=True, session="s1")
        for path in (f"/jobs/{id}", "/jobs", f"/jobs/{id}/stream"):
            answer = http.get(path)
            assert answer.status_code == 200
            assert "hunter" not in answer.text, path
        assert http.get(f"/jobs/{id}").json()["result"] == MASK
    assert api.http.get(f"/jobs/{id}").json()["result"] == 1


def test_an_assistant_sees_none(client: Redis, id: str, registered: bool) -> None:
    info = reader.read(client, id)
    assert "hunter" not in str(reading._brief(info)) + str(reading._whole(info))


def test_a_schedule_shows_none_and_keeps_them_when_it_is_edited(pages: Pages, client: Redis) -> None:
    kwargs = {"user": "ada", "lock": CALL[1], "word": "hunter3!"}
    schedule_store.put(client, schedule("nightly", {"job": NAME, "every": "1h", "kwargs": kwargs}))
    for path in ("/schedules/nightly", "/schedules/nightly/edit"):
        page = pages.get(path)
        assert "hunter" not in page
        assert MASK in page
    hidden = {"user": "bob", "lock": {"door": "south", "code": MASK}, "word": MASK}
    pages.post("/schedules/nightly/edit", job=NAME, every="1h", kwargs=json.dumps(hidden))
    found = schedule_store.entry(client, "nightly").schedule
    assert found
    assert found.kwargs == {
        "user": "bob",
        "lock": {"door": "south", "code": "hunter2!"},
        "word": "hunter3!",
    }
