"""Commands that RQ publishes to workers, such as to stop a job or to shut down."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import msgspec
from redis import Redis

from packmule.coordination.redis.backoff import REDIS_ERRORS
from packmule.coordination.redis.replies import UNREADABLE, as_text
from packmule.jobs import keys

log = logging.getLogger("packmule.worker")


class Command(msgspec.Struct, frozen=True):
    """A message as `rq.command.send_command` writes it: `stop-job`, `kill-horse`, `shutdown` or `wake-up`."""

    command: str
    job_id: str = ""


def command_of(worker: str, data: bytes) -> Command | None:
    """The command in a message to `worker`; logs a message that makes no sense, and returns None."""
    try:
        return msgspec.json.decode(data, type=Command)
    except UNREADABLE as error:
        log.warning("worker %s: ignored a command that makes no sense: %s", worker, error)
        return None


class Commands:
    """One subscription, on one connection, for all workers of a pool.

    Commands that are sent while the connection is lost are lost, so senders check whether theirs had an
    effect.
    """

    def __init__(self, client: Redis) -> None:
        self.client = client
        self._pubsub: Any = None
        self._workers: set[str] = set()

    def listen(self, workers: set[str]) -> None:
        """Listen for commands to these workers and no others. Raises what redis-py does."""
        if self._pubsub is None:
            self._pubsub = self.client.pubsub()  # type: ignore[no-untyped-call]
            self._workers = set()
        try:
            if added := [keys.commands_channel(name) for name in workers - self._workers]:
                self._pubsub.subscribe(*added)
            if gone := [keys.commands_channel(name) for name in self._workers - workers]:
                self._pubsub.unsubscribe(*gone)
        except REDIS_ERRORS:
            self.close()
            raise
        self._workers = set(workers)

    @property
    def sockets(self) -> list[Any]:
        """The socket that becomes readable when a command arrives, if there is a connection."""
        connection = self._pubsub.connection if self._pubsub else None
        return [connection._sock] if connection is not None and connection._sock is not None else []

    def received(self) -> Iterator[tuple[str, Command]]:
        """The commands that have arrived, each with the name of its worker."""
        try:
            while self.sockets and (message := self._pubsub.get_message(timeout=0)) is not None:
                if message["type"] != "message":
                    continue
                worker = as_text(message["channel"]).removeprefix(keys.commands_channel(""))
                if command := command_of(worker, message["data"]):
                    yield worker, command
        except REDIS_ERRORS as error:
            log.warning("can't receive commands: %s", error)
            self.close()

    def close(self) -> None:
        """Close the connection; `listen` opens another."""
        if self._pubsub is not None:
            with contextlib.suppress(*REDIS_ERRORS):
                self._pubsub.close()
            self._pubsub = None
