"""The locks that are held, as each lock node says, and their release by somebody else than the holder."""

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
from packmule.coordination.redis.scripts import Script

LOOK_SECONDS = 5.0
"""For which one node is searched for locks; a job server that keeps millions of keys as well has more."""

PAGE = 5_000
PATIENCE = 2.0
"""Seconds that a node may take to say whether it has a vote."""

_release = Script("coordination.locks", "release")

T = TypeVar("T")


class NotReleased(RuntimeError):
    """A lock stays as it is; the text says why."""


@dataclass(frozen=True, slots=True)
class Held:
    """A lock's holder: its `value` is on `nodes` lock nodes of `of`, and ends in `seconds` unless extended.

    On less than a majority it holds nothing: an attempt that failed, or what is left of a lock. `fence` is
    the token, None where it can't be known. `process` is 0 for a value that tells of none.
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
        """Whether a majority of the nodes has it."""
        return self.nodes > self.of // 2


@dataclass(frozen=True, slots=True)
class LockState:
    """Locks by name, the nodes, which of them have no vote and why, and of which only a part was seen."""

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
    """The locks on all nodes, or the one called `name`. Raises `redlock.SameServer`."""
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
    """Take a lock from its holder, on all nodes where it still is this one's; how many these were.

    The holder isn't told, and takes it back when it renews, unless another was faster: only the fence
    refuses what it writes. Raises `NotReleased`.
    """
    args = (held.value, held.fence or 0, grants.COUNTER_SECONDS, grants.channel(held.name))

    def give_back(client: redis.Redis) -> int:
        try:
            return int(_release(client, grants.keys(held.name), args))
        except (redis.RedisError, ServerFailed):
            return 0

    released = sum(_at_once(clients, give_back))
    if not released:
        raise NotReleased(
            f"{held.name} has ended or passed to another holder meanwhile: nothing was released"
        )
    return released


def _at_once(clients: Sequence[redis.Redis], ask: Callable[[redis.Redis], T]) -> list[T]:
    """What each node answers; they are asked side by side, for some may not answer for seconds."""
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
            entries |= _entries(client, [_text(key).removeprefix(grants.keys("")[0]) for key in keys])
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
        name: _Entry(_text(value), max(0, left), int(token) if _is_number(token) else 0)
        for name, value, left, token in rows
        if isinstance(value, bytes)
    }


def _held(name: str, value: str, entries: Sequence[_Entry | None]) -> Held:
    majority = len(entries) // 2 + 1
    ours = [entry for entry in entries if entry and entry.value == value]
    spans = sorted((entry.milliseconds for entry in ours), reverse=True)
    # A majority knows the holder's token; a node that others tried may have counted further.
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


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
