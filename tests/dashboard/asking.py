"""Requests to a site in this process, handed over as a server would."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import unquote

from redis import Redis
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.routing import BaseRoute

from packmule.dashboard.guard import Guard, Identify
from packmule.dashboard.guarding.rules import Rules
from packmule.dashboard.live.streams import hub_of
from packmule.dashboard.site import Site, build
from packmule.dashboard.viewer import Role, Viewer
from packmule.jobs.client import Client

DEADLINE = 60.0
Outcome = TypeVar("Outcome")
OWN = {"Sec-Fetch-Site": "same-origin"}


def site_of(client: Redis) -> Site:
    return Site(client, Client(client), ("default",), "redis://x", "development")


def anybody(request: Request) -> Viewer | None:
    """Takes everybody for one admin without a session."""
    return Viewer("local", Role.ADMIN, may_see_payloads=True)


def guarded(
    client: Redis,
    *routes: BaseRoute,
    identify: Identify = anybody,
    rules: Rules | None = None,
) -> Guard:
    """The site with more routes, for those that `identify` knows."""
    return unwatched(build(site_of(client), identify, routes, rules))


def unwatched(app: Guard) -> Guard:
    """`app`, whose pages begin no thread that watches Redis, since nothing would end it with the test."""
    hub_of(app.site).close()  # type: ignore[arg-type]
    return app


def always(role: Role = Role.OPERATOR, payloads: bool = True) -> Identify:
    """Takes everybody for Ada, with this role."""
    return lambda request: Viewer("ada", role, payloads, "s1")


@dataclass
class Answer:
    """What came back."""

    status: int = 0
    headers: Headers = field(default_factory=Headers)
    body: bytes = b""
    ended: bool = False

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace")


def ask(app: Guard, path: str, method: str = "GET", **more: Any) -> Answer:
    """The whole answer to one request."""
    return run(asked(app, path, method, **more))


def run(scenario: Coroutine[Any, Any, Outcome]) -> Outcome:
    """Run a scenario to its end; in a thread, since a browser of other tests may have a loop in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, scenario).result()


async def asked(
    app: Guard,
    path: str,
    method: str = "GET",
    *,
    headers: dict[str, str] | Iterable[tuple[str, str]] = (),
    body: bytes | AsyncIterator[bytes] = b"",
    peer: tuple[str, int] | None = ("192.0.2.7", 50000),
    server: tuple[str, int] = ("192.0.2.1", 80),
    scheme: str = "http",
    host: str | None = "jobs.example.com",
    answer: Answer | None = None,
    stop: asyncio.Event | None = None,
) -> Answer:
    """The answer to one request; `answer` fills while it comes, and `stop` is the client's leaving."""
    answer = Answer() if answer is None else answer
    path, _, query = path.partition("?")
    pairs = list(headers.items() if isinstance(headers, dict) else headers)
    told = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in pairs]
    if host is not None:
        told.insert(0, (b"host", host.encode()))
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": scheme,
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode("latin-1"),
        "root_path": "",
        "headers": told,
        "client": peer,
        "server": server,
    }
    parts = _parts(body)
    sent_all = False

    async def receive() -> dict[str, Any]:
        nonlocal sent_all
        if sent_all:
            if stop is None:
                await asyncio.sleep(DEADLINE)
            else:
                await stop.wait()
            return {"type": "http.disconnect"}
        part = await anext(parts, None)
        sent_all = part is None
        return {"type": "http.request", "body": part or b"", "more_body": not sent_all}

    async def send(event: Any) -> None:
        if event["type"] == "http.response.start":
            assert not answer.status
            answer.status, answer.headers = event["status"], Headers(raw=event["headers"])
        else:
            answer.body += event.get("body", b"")
            answer.ended = not event.get("more_body", False)

    async with asyncio.timeout(DEADLINE):
        await app(scope, receive, send)
    return answer


async def _parts(body: bytes | AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if isinstance(body, bytes):
        if body:
            yield body
    else:
        async for part in body:
            yield part
