"""The audit: what operators did, by whom and when."""

from __future__ import annotations

import os
import pwd
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from redis import Redis

from packmule.coordination.streams.stream import Event, Stream
from packmule.jobs import wire
from packmule.units import YEAR

MOST_ENTRIES = 100_000
MAX_AGE = float(YEAR)
"""Seconds after which an action may be forgotten: a year."""


class Action(NamedTuple):
    """What `who` (user@host) did, such as `queue pause`, to what; `at` is in Unix seconds."""

    id: str
    at: float
    who: str
    action: str
    subject: Mapping[str, Any]


def stream(client: Redis) -> Stream:
    """The stream of all actions."""
    return Stream(client, wire.AUDIT, max_entries=MOST_ENTRIES, max_age=MAX_AGE)


def record(client: Redis, action: str, subject: Mapping[str, Any]) -> None:
    """Note that this process's user has done something. Raises what redis-py does."""
    stream(client).append([[time.time(), whoami(), action, dict(subject)]])


def whoami() -> str:
    """The user that this process runs as, at this host."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def parse(event: Event) -> Action | None:
    """A stream's event as an action; None for what nobody of us wrote."""
    match event.value:
        case [int() | float() as at, str(who), str(action), dict(subject)]:
            return Action(event.id, float(at), who, action, subject)
    return None


def read(client: Redis, since: str = "0") -> Iterator[Action]:
    """The actions after the id `since`, or after so many Unix milliseconds, the oldest first."""
    for event in stream(client).read_all(since):
        if (parsed := parse(event)) is not None:
            yield parsed
