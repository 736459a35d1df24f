"""Rights and the audited door: what a page may do for whom, and what is kept of it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator

import pytest
from redis import Redis
from redis import exceptions as redis_errors
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from packmule.dashboard.acting import acting, go
from packmule.dashboard.rights import needed, needs
from packmule.dashboard.site import Site, build
from packmule.dashboard.viewer import Role, Viewer
from packmule.errors import Conflict, NotFound, Unavailable, UsageError
from packmule.jobs.client import Client
from packmule.observe import audit
from packmule.tests.dashboard.asking import unwatched

Serve = Callable[..., TestClient]


@pytest.fixture
def serve(client: Redis) -> Iterator[Serve]:
    """Serves handlers as pages of the site are served, to a viewer of some role."""
    with contextlib.ExitStack() as closing:

        def served(*routes: Route, role: Role = Role.OPERATOR, redis: Redis = client) -> TestClient:
            site = Site(redis, Client(redis), ("default",), "redis://x", "development")
            app = unwatched(build(site, lambda request: Viewer("ada", role), routes))
            return closing.enter_context(TestClient(app, client=("192.0.2.7", 50000)))

        yield served


@needs(Role.OPERATOR)
def act(request: Request) -> Response:
    with acting(request, "thing do", id="7\n8") as subject:
        subject["done"] = 1
    return go(request, "/", "Done <b>it</b>.")


@needs(Role.ADMIN)
async def administer(request: Request) -> Response:
    return Response("administered")


def test_what_needs_a_role_is_refused_to_those_without_it(serve, client):
    routes = [Route("/act", act, methods=["POST"]), Route("/administer", administer, methods=["POST"])]
    refused = serve(*routes, role=Role.VIEWER).post("/act", headers={"Sec-Fetch-Site": "same-origin"})
    assert refused.status_code == 403
    assert "You are a viewer, but this needs an operator" in refused.text
    assert list(audit.read(client)) == []
    answer = serve(*routes).post("/administer", headers={"Sec-Fetch-Site": "same-origin"})
    assert answer.status_code == 403
    answer = serve(*routes, role=Role.ADMIN).post("/administer", headers={"Sec-Fetch-Site": "same-origin"})
    assert answer.text == "administered"
    assert (needed(act), needed(administer), needed(print)) == (Role.OPERATOR, Role.ADMIN, None)


def test_an_act_is_recorded_with_who_and_from_where_and_its_message_is_shown_once(serve, client):
    browser = serve(Route("/act", act, methods=["POST"]))
    answer = browser.post("/act", headers={"Sec-Fetch-Site": "same-origin"}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    (done,) = audit.read(client)
    assert (done.who, done.where, done.action) == ("ada", "192.0.2.7", "thing do")
    assert done.subject == {"id": "7\n8", "done": 1}
    assert "Done &lt;b&gt;it&lt;/b&gt;." in browser.get("/").text
    assert "Done" not in browser.get("/").text


def test_an_act_that_fails_is_recorded_with_its_error(serve, client):
    def fail(request: Request) -> Response:
        with acting(request, "thing do"):
            raise Conflict("thing 7 is busy: wait for it")

    answer = serve(Route("/fail", fail)).get("/fail")
    assert (answer.status_code, answer.text) == (409, "thing 7 is busy: wait for it\n")
    assert [each.subject for each in audit.read(client)] == [{"error": "Conflict"}]


def test_an_act_that_the_audit_cannot_keep_is_done_and_says_so(serve, client, caplog):
    def blind(request: Request) -> Response:
        with acting(request, "thing do"):
            client.set("pm:audit", "of another type")
        return go(request, "/", "Done.")

    browser = serve(Route("/blind", blind))
    assert "Done. It could not be recorded in the audit log." in browser.get("/blind").text
    assert "thing do by ada was done, but not recorded" in caplog.text


@pytest.mark.parametrize("kept", ["", "%%%", "!" * 5000, "gICA", "\x00", "PGI-"])
def test_a_message_that_somebody_made_up_breaks_nothing(serve, kept):
    page = serve().get("/", headers={"Cookie": f"packmule_message={kept}"})
    assert page.status_code == 200
    assert "<b>" not in page.text


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (NotFound("there is no job x\x1b[2J<b>"), 404, "there is no job x"),
        (UsageError("no number"), 400, "no number"),
        (Conflict("it runs"), 409, "it runs"),
        (Unavailable("no server"), 503, "no server"),
        (redis_errors.ConnectionError("secret"), 503, "Redis can't be reached"),
        (redis_errors.TimeoutError("secret"), 503, "Redis can't be reached"),
        (redis_errors.ReadOnlyError("secret"), 503, "read-only"),
        (redis_errors.OutOfMemoryError("secret"), 503, "Redis is full"),
        (redis_errors.ResponseError("MISCONF it can't persist"), 503, "MISCONF"),
        (redis_errors.ResponseError("WRONGTYPE Operation"), 409, "has the wrong type"),
        (ValueError("secret"), 500, "The log of the dashboard has the details"),
    ],
)
def test_what_goes_wrong_is_said_in_words_to_people_and_programs(serve, error, status, words, caplog):
    def broken(request: Request) -> Response:
        raise error

    site = serve(Route("/broken", broken))
    page = site.get("/broken", headers={"Accept": "text/html"})
    line = site.get("/broken")
    assert (page.status_code, line.status_code) == (status, status)
    for answer in (page, line):
        assert words in answer.text.replace("&#39;", "'")
        assert "secret" not in answer.text
        assert "\x1b" not in answer.text
        assert answer.headers.get("retry-after") == ("5" if status == 503 else None)
    assert "<b>" not in page.text
    assert page.headers["content-type"].startswith("text/html")
    assert line.headers["content-type"].startswith("text/plain")
    assert ("Traceback" in caplog.text) == (status == 500)


def test_what_broke_is_in_the_log_with_each_line_made_safe(serve, caplog):
    def broken(request: Request) -> Response:
        raise ValueError("x\x1b[2J\nforged line\u202e")

    with caplog.at_level(logging.ERROR):
        serve(Route("/broken/{name:path}", broken)).get("/broken/a%0Dforged%1b[2J")
    assert "\x1b" not in caplog.text
    assert "\u202e" not in caplog.text
    assert "/broken/a\\rforged" in caplog.text
    assert "\n  forged line" in caplog.text


def test_unknown_addresses_and_ways_are_refused_in_words(serve):
    site = serve(Route("/act", act, methods=["POST"]))
    html = {"Accept": "text/html,*/*;q=0.8"}
    page = site.get("/nowhere", headers=html)
    assert (page.status_code, "There is no such page." in page.text) == (404, True)
    page = site.get("/act", headers=html)
    assert (page.status_code, page.headers["allow"]) == (405, "POST")
    answer = site.options("/act", headers={"Sec-Fetch-Site": "same-origin"})
    assert (answer.status_code, answer.headers["allow"], answer.text) == (204, "OPTIONS, POST", "")
    answer = site.head("/")
    assert (answer.status_code, answer.text) == (200, "")
