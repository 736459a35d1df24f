"""Testing code that enqueues: perform jobs at once, collect them, or use a private server."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from packmule.coordination.redis.embedded_server import EmbeddedServer
    from packmule.jobs.client import Client
    from packmule.testing.local import LocalClient

C = TypeVar("C", bound="Client")

# pytest loads this package in every run where Packmule is installed, so what it needs is imported late.


@contextmanager
def inline(*, raises: bool = True) -> Iterator[LocalClient]:
    """Perform each job in this process as soon as it is enqueued, until the block ends.

    Calls are checked, arguments and results go through JSON, failed jobs are retried without a pause, and
    `current` works as in a worker. An enqueue raises the error that ends its job; with `raises=False` the job
    has failed, as its handle tells.

    >>> with packmule.testing.inline():
    ...     report.enqueue("2026-11").result()  # doctest: +SKIP
    '1 of 2026-11'
    """
    from packmule.testing.local import LocalClient

    with _default(LocalClient(is_inline=True, raises=raises)) as client:
        yield client


@contextmanager
def queue(*, raises: bool = True) -> Iterator[LocalClient]:
    """Collect what is enqueued in this process until the block ends, and perform it by `drain()`.

    >>> with packmule.testing.queue() as queue:
    ...     close_the_month("2026-11")  # doctest: +SKIP
    ...     queue.assert_enqueued(report, "2026-11", queue="low")  # doctest: +SKIP
    """
    from packmule.testing.local import LocalClient

    with _default(LocalClient(raises=raises)) as client:
        yield client


@contextmanager
def private_server() -> Iterator[EmbeddedServer]:
    """A running server in a temporary directory; both are gone when the block ends."""
    from packmule.coordination.redis.embedded_server import EmbeddedServer

    server = EmbeddedServer(Path(tempfile.mkdtemp(prefix="packmule-")))
    try:
        server.ensure()
        yield server
    finally:
        server.stop()
        shutil.rmtree(server.data_dir, ignore_errors=True)  # a rewrite of its file may end a moment later


@contextmanager
def empty(server: EmbeddedServer) -> Iterator[Client]:
    """A client of `server`, emptied, that takes this process's enqueues until the block ends."""
    from dataclasses import replace

    from packmule.config import Settings
    from packmule.jobs.client import Client

    settings = replace(Settings.from_env(), redis_url=server.url, data_dir=server.data_dir)
    with Client(settings) as client:
        client.redis.flushall()
        with _default(client):
            yield client


@contextmanager
def _default(client: C) -> Iterator[C]:
    """Make `client` the process's default client until the block ends."""
    from packmule.jobs.client import Client

    before, Client._default = Client._default, client
    try:
        yield client
    finally:
        Client._default = before
