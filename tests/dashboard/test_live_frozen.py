"""A Redis that is frozen, which no connection notices: the site says so in time, and recovers."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from packmule.coordination.redis.connection import connect
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.dashboard import guard
from packmule.dashboard.live.streams import hub_of
from packmule.dashboard.pages import overview
from packmule.tests.command_line import DEADLINE, until
from packmule.tests.dashboard.asking import ask, guarded
from packmule.tests.dashboard.sites import Served, served
from packmule.tests.dashboard.streams import listening

THREADS = 40
"""Those in which pages are made."""

PAGE = {"Accept": "text/html"}


def facts(request: Request) -> Response:
    request.app.state.site.client.ping()
    return PlainTextResponse("facts")


@contextmanager
def frozen(server: EmbeddedServer) -> Iterator[None]:
    """The server neither answers nor refuses until the block ends."""
    pid = server.pid()
    assert pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


class Crowd:
    """Many who ask at once, each on a connection of its own."""

    def __init__(self, site: Served) -> None:
        self.site = site
        self.threads = ThreadPoolExecutor(150)
        limits = httpx.Limits(max_connections=None)
        self.http = httpx.Client(base_url=site.address, timeout=3 * DEADLINE, limits=limits)

    def ask(self, path: str, times: int = 1) -> list[Future[httpx.Response]]:
        return [self.threads.submit(self.http.get, path, headers=PAGE) for _ in range(times)]

    def status(self, path: str) -> int:
        return self.ask(path)[0].result(DEADLINE).status_code

    @property
    def being_answered(self) -> int:
        return int(self.site.app.running)


@contextmanager
def crowd_at(site: Served) -> Iterator[Crowd]:
    crowd = Crowd(site)
    try:
        yield crowd
    finally:
        crowd.threads.shutdown()
        crowd.http.close()


def test_pages_and_health_say_so_in_time_and_all_recovers(spare_server, monkeypatch):
    monkeypatch.setattr(overview, "SAME_FOR", -1.0)  # or what was read before could still be shown
    server = spare_server()
    with (
        connect(server.url, server.data_dir) as client,
        served(client, more_routes=[Route("/facts", facts)]) as site,
        crowd_at(site) as crowd,
        listening(site.address, "/live?on=jobs") as heard,
    ):
        assert [crowd.status(path) for path in ("/", "/jobs", "/facts", "/health")] == [200] * 4
        until(lambda: hub_of(site.app.site).is_watching, "the watcher")
        with frozen(server):
            asked = crowd.ask("/", THREADS) + crowd.ask("/facts", THREADS)
            until(
                lambda: crowd.being_answered + sum(each.done() for each in asked) >= 2 * THREADS,
                "the requests, of which a slow machine may have answered some",
            )
            (health,) = crowd.ask("/health")
            answer = health.result(DEADLINE)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
            for each in asked:
                answer = each.result(DEADLINE)
                assert answer.status_code == 503
                assert "Redis can&#39;t be reached" in answer.text
            heard.next("away")
        heard.next("back")
        until(lambda: crowd.status("/health") == 200, "Redis")
        assert {each.result(DEADLINE).status_code for each in crowd.ask("/", 2 * THREADS)} == {200}
        until(lambda: crowd.being_answered == 0, "the end of requests, which comes after their answers")


def test_who_waits_for_a_thread_is_answered_before_there_is_one(spare_server):
    """Answers of Redis may take far longer here than the test's deadline, and so do the threads."""
    server = spare_server()
    with (
        connect(server.url, server.data_dir, socket_timeout=10 * DEADLINE) as client,
        served(client, more_routes=[Route("/facts", facts)]) as site,
        crowd_at(site) as crowd,
    ):
        assert crowd.status("/facts") == 200
        with frozen(server):
            asked = crowd.ask("/facts", THREADS + 30)
            until(lambda: sum(each.done() for each in asked) == 30, "answers of those who wait for a thread")
            answered = [each for each in asked if each.done()]
            assert {each.result().status_code for each in answered} == {503}
            assert [crowd.status("/health") for _ in range(3)] == [503] * 3
            assert sum(each.done() for each in asked) == 30, "all threads are held"
        for each in asked:
            each.result(DEADLINE)
        until(lambda: crowd.status("/health") == 200, "Redis")
        assert crowd.status("/facts") == 200


def test_a_page_that_takes_long_is_answered_while_redis_is_there(client, monkeypatch):
    monkeypatch.setattr(guard, "SLOW", 0.01)
    doubts: list[int] = []
    check = guarded(client).pulse.check

    async def noted(patience: float) -> None:
        doubts.append(1)
        await check(patience)

    def slow(request):
        until(lambda: len(doubts) > 2, "doubts")
        return PlainTextResponse("done")

    app = guarded(client, Route("/slow", slow))
    monkeypatch.setattr(app.pulse, "check", noted)
    assert ask(app, "/slow").text == "done"


def test_health_is_told_whatever_else_is_asked(client, monkeypatch):
    app = guarded(client)
    app.running = guard.MOST_REQUESTS
    assert ask(app, "/").status == 503
    assert (ask(app, "/health").status, ask(app, "/health").text) == (200, "ok\n")
    assert app.running == guard.MOST_REQUESTS


@pytest.mark.parametrize("headers", [{}, PAGE])
def test_health_says_that_redis_is_gone(spare_server, headers):
    server = spare_server()
    with connect(server.url, server.data_dir) as client:
        app = guarded(client)
        assert ask(app, "/health", headers=headers).status == 200
        server.stop()
        for _ in range(3):
            answer = ask(app, "/health", headers=headers)
            assert answer.status == 503
            assert "can't be reached" in answer.text.replace("&#39;", "'")
        server.ensure()
        until(lambda: ask(app, "/health", headers=headers).status == 200, "Redis")
