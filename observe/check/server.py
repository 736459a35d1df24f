"""What the job server is, promises and allows, each as a sentence; a fault is raised."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from redis import Redis
from redis.exceptions import ResponseError

from packmule.coordination.redis import compact
from packmule.coordination.redis.durability import durability
from packmule.coordination.redis.replies import as_text, pipelined
from packmule.errors import Conflict, Unavailable
from packmule.jobs import cluster, keys
from packmule.observe.memory import MemoryMark
from packmule.units import span

ROUND_TRIPS = 5

MOST_APART = 1.0
"""Seconds that the server's clock may differ from this machine's."""

NEEDED = (
    ("EVALSHA", "x", "1", keys.LEASES),
    ("EVAL", "return 1", "1", keys.LEASES),
    ("BLMOVE", keys.queue_key("check"), keys.LEASES, "LEFT", "RIGHT", "1"),
    ("HGETALL", keys.job_key("check")),
    ("XADD", keys.LEASES, "*", "a", "b"),
    ("SUBSCRIBE", keys.commands_channel("check")),
    ("PUBLISH", keys.commands_channel("check"), "x"),
    ("CLIENT", "UNBLOCK", "1"),
    ("INFO",),
    ("SCAN", "0"),
)
"""Commands without which jobs don't run, as a worker, a producer or the scheduler sends them."""


class RightsLacking(Unavailable):
    """The user of the URL may not do on the server what jobs need."""


class ClocksApart(Conflict):
    """The server's clock and this machine's differ too much for times of jobs to be right."""


class MemoryFull(Unavailable):
    """The server uses more memory than it may, so nothing can be enqueued."""


LEAST_RIGHTS = "~pm:* ~rq:* &* +@all -@admin -@dangerous +client +info"
"""What the user of the URL needs, in the words of `ACL SETUSER`."""


def version(client: Redis, high_water: str) -> str:
    """Which server it is, how far away, and by what settings it would keep jobs in less memory.

    >>> version(client, "")  # doctest: +SKIP
    'ok, valkey 9.1.2, a round trip takes 0.1 ms'
    """
    found = cluster.server(client)
    mark = MemoryMark(client, high_water)
    fault = mark.fault(mark.usage()[1])
    text = f"ok, {found['server']} {found['version']}, a round trip takes {_round_trip(client):.1f} ms"
    if advice := compact.advice(client):
        text += f"; jobs would take less memory after {' and '.join(advice)}"
    return text + (f"; {fault}" if fault else "")


def promise(client: Redis) -> str:
    """What the server at hand promises of acknowledged jobs."""
    return f"ok, {durability(client).promise}"


def memory(client: Redis, high_water: str) -> str:
    """How much memory the server uses of what it may, and what it does when that is full."""
    info: Mapping[str, Any] = client.info("memory")
    used = int(info["used_memory"])
    allowed = MemoryMark(client, high_water).allowed(int(info.get("maxmemory", 0)))
    policy = str(info.get("maxmemory_policy", "noeviction"))
    bound = f"of {allowed / 2**20:.1f} MiB that jobs may use" if allowed else "used, without a limit"
    text = f"{used / 2**20:.1f} MiB {bound}, maxmemory-policy {policy}"
    if allowed and used > allowed:
        raise MemoryFull(f"{text}: nothing can be enqueued until some of it is free")
    if policy != "noeviction":
        text += ": it deletes jobs when its memory is full, and PACKMULE_ALLOW_EVICTION allows that"
    return f"ok, {text}"


def rights(client: Redis) -> str:
    """As which user we come, and whether that user may do what jobs need. Raises `RightsLacking`.

    Servers before Redis 7, and some managed ones, don't tell.
    """
    user = "default"
    try:
        user = as_text(client.acl_whoami())
        replies = pipelined(client, [("ACL DRYRUN", user, *command) for command in NEEDED], "untold")
    except ResponseError as error:
        return f"ok, as {user}; the server doesn't say what this user may do ({error})"
    said = [as_text(reply) if isinstance(reply, bytes | str) else "" for reply in replies]
    refused = [
        f"{' '.join(command[:2]) if command[0] == 'CLIENT' else command[0]} on {_key(command)}"
        for command, reply in zip(NEEDED, said, strict=True)
        if "permission" in reply
    ]
    if refused:
        raise RightsLacking(
            f"the user {user} may not use {', '.join(refused)}: run ACL SETUSER {user} {LEAST_RIGHTS}"
        )
    if any(reply != "OK" for reply in said):
        return f"ok, as {user}; the server doesn't say what this user may do"
    return f"ok, as {user}, who may do all that jobs need"


def clock(client: Redis) -> str:
    """How far the server's clock is from this machine's. Raises `ClocksApart`."""
    apart, within = min((_apart(client) for _ in range(ROUND_TRIPS)), key=lambda each: each[1])
    certain = max(0.0, abs(apart) - within)
    if certain > MOST_APART:
        way = "ahead of" if apart > 0 else "behind"
        raise ClocksApart(
            f"the server's clock is {span(abs(apart))} {way} this machine's: times of jobs, schedules and "
            "timeouts are wrong by that; synchronize both with NTP"
        )
    return f"ok, the server's clock is within {span(abs(apart) + within)} of this machine's"


def _apart(client: Redis) -> tuple[float, float]:
    """Seconds that the server's clock is ahead, and how many it may be more or less."""
    began, began_at = time.monotonic(), time.time()
    seconds, microseconds = client.time()
    took = time.monotonic() - began
    return seconds + microseconds / 1e6 - (began_at + took / 2), took / 2


def _key(command: tuple[str, ...]) -> str:
    """The pattern of the keys or channels that a command names."""
    return next((f"{each[:3]}*" for each in command[1:] if each[2:3] == ":"), "the server")


def _round_trip(client: Redis) -> float:
    """Milliseconds that an answer takes."""
    spans = []
    for _ in range(ROUND_TRIPS):
        began = time.monotonic()
        client.ping()
        spans.append(time.monotonic() - began)
    return min(spans) * 1000
