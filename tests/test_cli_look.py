"""`packmule look`: all pages of a stock RQ system, for whoever has the link, and not one write."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis
from rq import Queue, SimpleWorker
from rq.serializers import JSONSerializer

from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.dashboard.viewer import Role
from packmule.tests.command_line import DEADLINE, CommandLine, complaint, environment_in
from packmule.tests.dashboard.sites import served


@pytest.fixture
def packmule(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path, environment_in(tmp_path, None))


@contextmanager
def looking(packmule: CommandLine, url: str) -> Iterator[tuple[str, httpx.Client]]:
    """The address with its key, and a browser at the site."""
    with packmule.started("look", url) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        (address,) = re.findall(r"http://127\.0\.0\.1:\d+/\?key=\S+", line)
        with httpx.Client(base_url=address.partition("?")[0], timeout=DEADLINE) as browser:
            yield address, browser
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == 0


@pytest.fixture
def filled(client: Redis) -> Iterator[list[str]]:
    """Jobs that stock RQ enqueued with both of its serializers: finished, failed, waiting and scheduled."""
    handlers = {
        signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    }
    ids = []
    for name, options in {"mail": {"serializer": JSONSerializer}, "pickled": {}}.items():
        queue: Any = Queue(name, connection=client, **options)
        jobs = [queue.enqueue("operator.add", 1, 2), queue.enqueue("operator.truediv", 1, 0)]
        SimpleWorker([queue], connection=client, **options).work(burst=True)
        jobs += [
            queue.enqueue("operator.add", 1, 2),
            queue.enqueue_in(timedelta(hours=1), "operator.add", 1, 2),
        ]
        ids += [job.id for job in jobs]
    for key in client.keys("*"):
        client.persist(key)  # or it would be gone before a slow machine has looked
    yield ids
    for signum, handler in handlers.items():  # RQ's workers leave theirs
        signal.signal(signum, handler)


def writes(client: Redis) -> tuple[int, dict[bytes, bytes | None]]:
    """How often the server's data has been changed, and all of it."""
    dump = {key: client.dump(key) for key in sorted(client.keys("*"))}
    return client.info("persistence")["rdb_changes_since_last_save"], dump


def test_a_look_shows_all_pages_of_an_rq_system_and_changes_nothing(
    packmule: CommandLine, server: EmbeddedServer, client: Redis, filled: list[str]
) -> None:
    ids = filled
    with served(client, Role.VIEWER) as site:
        pages = [
            route.path for route in site.app.site.routes if "GET" in (getattr(route, "methods", 0) or ())
        ]
    before = writes(client)
    with looking(packmule, server.url) as (address, browser):
        assert browser.get(address).status_code == 303
        paths = [path for path in pages if "{" not in path and not path.startswith(("/login", "/live"))]
        assert {"/", "/jobs", "/workers"} <= set(paths)
        for path in [
            *paths,
            *(f"/jobs/{id}" for id in ids),
            "/rq/",
            "/rq/0/view/jobs",
            "/rq/0/data/queues.json",
        ]:
            answer = browser.get(path)
            assert answer.status_code < 500, (path, answer.text)
        for name in ("mail", "pickled"):
            assert name in browser.get("/").text
        assert "ZeroDivisionError" in browser.get(f"/jobs/{ids[1]}").text
        for path in ("/queues/mail/pause", f"/jobs/{ids[1]}/retry", "/login", f"/rq/job/{ids[1]}/delete"):
            assert browser.post(path).status_code == 405, path
    assert writes(client) == before


def test_only_the_link_opens_a_look(packmule: CommandLine, server: EmbeddedServer, client: Redis) -> None:
    with looking(packmule, server.url) as (address, browser):
        for path in ("/", "/jobs", "/static/packmule.css", "/api/v1/queues", "/?key=", "/?key=%00é"):
            answer = browser.get(path)
            assert (answer.status_code, "Open the link" in answer.text) == (401, True), path
        assert "key=" not in browser.get(address).headers["location"]
        assert browser.get("/").status_code == 200


@pytest.mark.parametrize(
    ("url", "code", "words"),
    [
        ((), 2, "name a server, such as packmule look redis://localhost:6379/0"),
        (("redis://127.0.0.1:1/0",), 3, "127.0.0.1:1"),
        (("localhost:6379",), 2, "redis://"),
    ],
)
def test_a_server_that_cannot_be_looked_at_is_told_in_one_line(
    packmule: CommandLine, url: tuple[str, ...], code: int, words: str
) -> None:
    assert words in complaint(packmule.run("look", *url), code)
