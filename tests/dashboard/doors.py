"""The dashboard's door for tests: a site that asks for a login, and visitors with cookies of their own."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from redis import Redis
from starlette.testclient import TestClient

from packmule.dashboard.guarding.rules import Rules
from packmule.dashboard.login.identify import identify_by
from packmule.dashboard.site import Site, build
from packmule.dashboard.users import passwords
from packmule.dashboard.users.store import Users
from packmule.dashboard.users.user import User
from packmule.dashboard.viewer import Role
from packmule.jobs.client import Client
from packmule.tests.command_line import DEADLINE, until
from packmule.tests.dashboard.asking import unwatched

GOOD = "correct horse battery"
SAME = {"Sec-Fetch-Site": "same-origin", "Accept": "text/html"}


class Door:
    """A site on `client`'s server that lets in whom its users are."""

    def __init__(self, client: Redis, rules: Rules | None = None) -> None:
        self.client = client
        self.users = Users(client)
        site = Site(client, Client(client), ("default",), "redis://x", "development")
        self.app = unwatched(build(site, identify_by(client), rules=rules))

    def add(self, name: str, role: Role = Role.VIEWER, password: str = GOOD, **fields: Any) -> None:
        """Add a user with a password."""
        self.users.add(User(name, role, password=passwords.hash_of(password) if password else "", **fields))

    def visitor(
        self, address: str = "192.0.2.7", *, url: str = "http://localhost:9181", **options: Any
    ) -> Visitor:
        """Somebody with an empty cookie jar, at an address."""
        return Visitor(
            self.app, base_url=url, client=(address, 50000), headers=SAME, follow_redirects=False, **options
        )


@contextmanager
def served_door(door: Door) -> Iterator[str]:
    """The address of a door's site, until the block ends."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        door.app,
        log_config=None,
        timeout_keep_alive=int(DEADLINE),
        timeout_graceful_shutdown=1,
        lifespan="off",
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    try:
        until(lambda: server.started, "the dashboard")
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(DEADLINE)
        door.app.streams.end()
        listening.close()


class Visitor(TestClient):
    """A browser."""

    def log_in(self, name: str = "ada", password: str = GOOD, **more: str) -> Any:
        return self.post("/login", data={"user": name, "password": password, **more})

    @property
    def is_in(self) -> bool:
        return self.get("/account").status_code == 200

    def cookie(self, ending: str = "") -> str:
        """The value of the session's cookie, or of the browser's."""
        return next(
            (
                each.value or ""
                for each in self.cookies.jar
                if each.name.startswith(("packmule-", "__"))
                and each.name.endswith("-browser") == bool(ending)
            ),
            "",
        )
