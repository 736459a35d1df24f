"""Database connections around each job, and jobs that wait for the end of a transaction."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any

from asgiref.sync import sync_to_async
from django.db import close_old_connections, connections, transaction

from packmule.hooks import Performing

_process = os.getpid()
_inherited: list[object] = []
"""Connections and pools of a process that forked this one: to close or free them would end them there."""


class Connections(AbstractContextManager[None], AbstractAsyncContextManager[None]):
    """Closes connections that are too old or broken before and after a job, as Django does for a request."""

    def __init__(self, job: Performing) -> None:
        self.job = job

    def __enter__(self) -> None:
        _begin()

    def __exit__(self, *_: object) -> None:
        close_old_connections()

    async def __aenter__(self) -> None:
        await sync_to_async(_begin)()

    async def __aexit__(self, *_: object) -> None:
        await sync_to_async(close_old_connections)()


def at_commit(send: Callable[[], object]) -> bool:
    """Whether `send` is called when the transaction that is open in this thread is committed.

    Jobs of a transaction that is rolled back are not sent.
    """
    for connection in connections.all(initialized_only=True):
        if connection.in_atomic_block:
            transaction.on_commit(send, using=connection.alias)
            return True
    return False


def _begin() -> None:
    global _process  # noqa: PLW0603
    if _process != os.getpid():
        _process = os.getpid()
        for connection in connections.all(initialized_only=True):
            _leave(connection)
        _leave_pools()
    close_old_connections()


def _leave_pools() -> None:
    """Forget psycopg's pools (`"OPTIONS": {"pool": ...}`), so that Django makes new ones."""
    postgresql = sys.modules.get("django.db.backends.postgresql.base")
    pools = postgresql.DatabaseWrapper._connection_pools if postgresql else {}
    _inherited.extend(pools.values())
    pools.clear()


def _leave(connection: Any) -> None:
    if connection.connection is not None:
        _inherited.append(connection.connection)
        connection.connection = None
