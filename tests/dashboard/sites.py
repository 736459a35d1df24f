"""Sites for tests: the dashboard in a thread of this process, for a viewer of any role."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn
from redis import Redis
from starlette.routing import BaseRoute

from packmule.dashboard.api.options import ApiOptions
from packmule.dashboard.images import Images
from packmule.dashboard.live.streams import hub_of
from packmule.dashboard.site import Site, build
from packmule.dashboard.viewer import Role, Viewer
from packmule.jobs.client import Client
from packmule.observe.check.checks import Checks
from packmule.tests.command_line import DEADLINE, until

QUEUES = ("high", "default", "low")


@dataclass
class Served:
    """A served site: `address` without a slash at its end; `viewer` may be replaced while it is served."""

    address: str
    viewer: Viewer
    app: Any


@contextmanager
def served(
    client: Redis,
    role: Role = Role.ADMIN,
    *,
    may_see_payloads: bool = True,
    environment: str = "development",
    more_routes: Sequence[BaseRoute] = (),
    root_path: str = "",
    queues: Sequence[str] = QUEUES,
    api: ApiOptions | None = None,
    checks: Checks | None = None,
    images: Images | None = None,
) -> Iterator[Served]:
    """The dashboard on `client`'s server, for a viewer of that role, until the block ends."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=512)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    found = Served(
        f"http://127.0.0.1:{listening.getsockname()[1]}", Viewer("ada", role, may_see_payloads, "s1"), None
    )
    jobs = Client(client, tuple(queues))
    site = Site(
        client, jobs, tuple(queues), "redis://private", environment, api=api or ApiOptions(), checks=checks,
        images=images,
    )  # fmt: skip
    found.app = build(site, lambda request: found.viewer, more_routes)
    config = uvicorn.Config(
        found.app,
        log_level=logging.WARNING,
        log_config=None,
        root_path=root_path,
        timeout_keep_alive=int(DEADLINE),
        timeout_graceful_shutdown=1,
        lifespan="off",
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    try:
        until(lambda: server.started, "the dashboard")
        yield found
    finally:
        server.should_exit = True
        thread.join(DEADLINE)
        found.app.streams.end()
        hub_of(found.app.site).close()  # it may not watch, and so heal, a server that a test has stopped
        listening.close()
