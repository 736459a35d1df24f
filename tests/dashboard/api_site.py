"""The API for tests: a real server in a thread of this process, and an httpx client with a token."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import redis

from packmule import current, job
from packmule.coordination.sessions.tokens import Tokens
from packmule.dashboard.api.options import ApiOptions
from packmule.jobs.read_tokens import REALM
from packmule.tests.command_line import DEADLINE
from packmule.tests.dashboard.sites import Served, served
from packmule.worker import Worker

ALL = ("enqueue", "read", "payloads", "act", "admin")


@job(queue="low")
def report(month: str, copies: int = 1) -> str:
    return f"{copies} of {month}"


@job
def echo(value: Any) -> Any:
    return value


@job
def boom() -> None:
    raise ValueError("the shelf is empty")


@job(unique=True)
def once(number: int) -> int:
    return number


@job
def talks(words: list[str]) -> int:
    current.progress(1, 2, "half")
    for word in words:
        current.emit(word)
    return len(words)


NAME = f"{report.job.name.rpartition('.')[0]}."
"""How the names of these jobs begin."""


@dataclass
class Api:
    """A served API: `http` has a token with all scopes."""

    redis: redis.Redis
    site: Served
    http: httpx.Client

    def token(self, *scopes: str, name: str = "") -> str:
        name = name or "-".join(scopes)
        tokens = Tokens(self.redis, REALM)
        if name in {grant.name for grant in tokens.all()}:
            tokens.revoke(name)
        return tokens.add(name, scopes)

    def as_(self, *scopes: str) -> httpx.Client:
        """A client with a token of these scopes."""
        return http_client(self.site.address, self.token(*scopes))

    def as_copy(self) -> httpx.Client:
        """Another connection of the client with all scopes."""
        return http_client(self.site.address, self.http.headers["Authorization"].removeprefix("Bearer "))

    def work(self) -> None:
        """Perform what is queued."""
        Worker(["high", "default", "low"], connection=self.redis).work(burst=True)

    def enqueue(self, name: str, *args: Any, **kwargs: Any) -> str:
        answer = self.http.post("/jobs", json={"job": NAME + name, "args": args, "kwargs": kwargs})
        assert answer.status_code == 201, answer.text
        id: str = answer.json()["id"]
        return id


def http_client(address: str, token: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.Client(base_url=f"{address}/api/v1", headers=headers, timeout=DEADLINE)


@contextmanager
def served_api(client: redis.Redis, options: ApiOptions | None = None) -> Iterator[Api]:
    """An API on `client`'s server; nobody has logged in, unless `site.viewer` is set."""
    with served(client, api=options) as site:
        site.viewer = None  # type: ignore[assignment]
        api = Api(client, site, http_client(site.address, ""))
        api.http.headers["Authorization"] = f"Bearer {api.token(*ALL, name='everything')}"
        with api.http:
            yield api
