"""The locks that are held, as each node reports them, and their release by an operator."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import redis

from packmule.coordination.locks import grants
from packmule.coordination.locks.node import Node
from packmule.coordination.locks.redlock import Redlock
from packmule.coordination.redis.embedded_server import ServerFailed
from packmule.coordination.redis.replies import as_text
from packmule.coordination.redis.scripts import Script
from packmule.errors import Conflict

LOOK_SECONDS = 5.0
"""Seconds for which a node is scanned; a job server with millions of other keys takes longer."""

PAGE = 5_000
PATIENCE = 2.0
"""Seconds that a node may take to report whether it votes."""

_release = Script("coordination.locks", "release")

T = TypeVar("T")


class LockNotReleased(Conflict, RuntimeError):
    """The lock ended or changed hands before it could be released."""


@dataclass(frozen=True, slots=True)
class Held:
    """A lock's holder: its `value` is on `nodes` of `of` lock nodes, and ends in `seconds` unless extended.

    On less than a majority it holds nothing: it is a failed attempt or a remnant of a lock. `fence` is its
    token, None if unknown. `process` is 0 if the value names none.
    """

    name: str
    value: str
    host: str
    process: int
    nodes: int
    of: int
    seconds: float
    fence: int | None

    @property
    def is_held(self) -> bool:
        """Whether it is on a majority of the nodes."""
        return self.nodes > self.of // 2


@dataclass(frozen=True, slots=True)
class LockState:
    """Locks by name, the nodes, why some of them can't vote, and those that were seen only in part."""

    locks: Sequence[Held]
    nodes: Sequence[str]
    faults: dict[str, str]
    unfinished: Sequence[str]


class _Entry(NamedTuple):
    value: str
    milliseconds: int
    token: int


class _Seen(NamedTuple):
    entries: dict[str, _Entry]
    fault: str
    is_whole: bool


def lock_state(clients: Sequence[redis.Redis], name: str | None = None) -> LockState:
    """The locks on all nodes, or the lock `name`. Raises `SameServer`."""
    nodes = [Node(client).name for client in clients]
    redlock = Redlock(clients, timeout=PATIENCE)
    try:
        faults = redlock.faults()
    finally:
        redlock.close()
    seen = _at_once(clients, lambda client: _look(client, name))
    faults = {node: each.fault for node, each in zip(nodes, seen, strict=True) if each.fault} | faults
    places = sorted({(lock, entry.value) for each in seen for lock, entry in each.entries.items()})
    return LockState(
        [_held(lock, value, [each.entries.get(lock) for each in seen]) for lock, value in places],
        nodes,
        faults,
        [node for node, each in zip(nodes, seen, strict=True) if not each.is_whole],
    )


def release(clients: Sequence[redis.Redis], held: Held) -> int:
    """Take a lock from its holder on all nodes where it still holds it; returns how many these were.

    The holder isn't notified. It takes the lock back at its next renewal unless another was faster, so only
    the fence refuses its writes. Raises `LockNotReleased`.
    """
    args = (held.value, held.fence or 0, grants.COUNTER_SECONDS, grants.channel(held.name))

    def give_back(client: redis.Redis) -> int:
        try:
            return int(_release(client, grants.keys(held.name), args))
        except (redis.RedisError, ServerFailed):
            return 0

    released = sum(_at_once(clients, give_back))
    if not released:
        raise LockNotReleased(
            f"{held.name} has ended or passed to another holder in the meantime: nothing was released"
        )
    return released


def _at_once(clients: Sequence[redis.Redis], ask: Callable[[redis.Redis], T]) -> list[T]:
    """What each node answers; asked in parallel, because some may not answer for seconds."""
    with ThreadPoolExecutor(len(clients)) as threads:
        return list(threads.map(ask, clients))


def _look(client: redis.Redis, name: str | None) -> _Seen:
    try:
        if name is not None:
            return _Seen(_entries(client, [name]), "", True)
        entries: dict[str, _Entry] = {}
        cursor, until = 0, time.monotonic() + LOOK_SECONDS
        while True:
            cursor, keys = client.scan(cursor, grants.keys("*")[0], PAGE)
            entries |= _entries(client, [as_text(key).removeprefix(grants.keys("")[0]) for key in keys])
            if cursor == 0 or time.monotonic() > until:
                return _Seen(entries, "", cursor == 0)
    except (redis.RedisError, ServerFailed) as error:
        return _Seen({}, " ".join(str(error).split()), True)


def _entries(client: redis.Redis, names: Sequence[str]) -> dict[str, _Entry]:
    if not names:
        return {}
    with client.pipeline(transaction=False) as pipeline:
        for lock, counter in map(grants.keys, names):
            pipeline.get(lock)
            pipeline.pttl(lock)
            pipeline.get(counter)
        replies: list[Any] = pipeline.execute(raise_on_error=False)
    rows = zip(names, replies[::3], replies[1::3], replies[2::3], strict=True)
    return {
        name: _Entry(as_text(value), max(0, left), int(token) if _is_number(token) else 0)
        for name, value, left, token in rows
        if isinstance(value, bytes)
    }


def _held(name: str, value: str, entries: Sequence[_Entry | None]) -> Held:
    majority = len(entries) // 2 + 1
    ours = [entry for entry in entries if entry and entry.value == value]
    spans = sorted((entry.milliseconds for entry in ours), reverse=True)
    # A majority knows the holder's token; a node that others tried may have a higher count.
    tokens = sorted((entry.token for entry in ours if entry.token), reverse=True)
    host, process, _ = value.rsplit(".", 2) if value.count(".") > 1 else (value, "", "")
    return Held(
        name,
        value,
        host,
        int(process) if process.isdecimal() else 0,
        len(ours),
        len(entries),
        spans[min(majority, len(spans)) - 1] / 1000,
        tokens[min(majority, len(tokens)) - 1] if tokens else None,
    )


def _is_number(token: object) -> bool:
    return isinstance(token, bytes) and token.isdigit()
