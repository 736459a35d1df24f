"""Locks taken and released a second over 1, 3 and 5 servers, and over 5 with one paused: ours and pottery's.

    python benchmarks/locks.py [seconds a measurement]

Each figure is the median of three measurements, with the longest time that one lock took, in milliseconds.
Without pottery only ours is measured: `make bench-peers` makes an environment, build/peers, that has it.
"""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack

import redis
from harness import arguments, by_turns, has, machine, table

from packmule.coordination.locks.redlock import Redlock
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.testing import private_server

ROUNDS = 3
SOCKET_TIMEOUT = 5.0
"""Seconds after which pottery's clients give up on a paused server; by default they never do."""


def ours(servers: list[EmbeddedServer], renew: bool) -> Callable[[], object]:
    redlock = Redlock([redis.Redis.from_url(each.url) for each in servers])
    return lambda: redlock.acquire("the lock", renew=renew).release()


def pottery(servers: list[EmbeddedServer]) -> Callable[[], object]:
    from pottery import Redlock as Pottery

    masters = {redis.Redis.from_url(each.url, socket_timeout=SOCKET_TIMEOUT) for each in servers}

    def once() -> None:
        lock = Pottery(key="the lock", masters=masters, auto_release_time=10)
        lock.acquire()
        lock.release()

    return once


def timed(once: Callable[[], object], seconds: float) -> tuple[float, float]:
    """Locks a second, and the longest time that one took in milliseconds."""
    taken, longest, began = 0, 0.0, time.perf_counter()
    now = began
    while now - began < seconds:
        once()
        before, now = now, time.perf_counter()
        longest = max(longest, (now - before) * 1000)
        taken += 1
    return taken / (now - began), longest


def measure(count: int, is_paused: bool, seconds: float) -> dict[str, str]:
    """Of each way over `count` servers, the last of them paused: the locks a second and the longest time."""
    with ExitStack() as closing:
        servers = [closing.enter_context(private_server()) for _ in range(count)]
        ways = {"ours": ours(servers, renew=False), "ours, renewed": ours(servers, renew=True)}
        if has("pottery"):
            ways["pottery"] = pottery(servers)
        for once in ways.values():
            once()
        if is_paused:
            pid = servers[-1].pid()
            os.kill(pid, signal.SIGSTOP)
            closing.callback(os.kill, pid, signal.SIGCONT)
        figures = by_turns(
            {name: lambda once=once: timed(once, seconds) for name, once in ways.items()}, ROUNDS
        )
    rates = {name: [rate for rate, _ in found] for name, found in figures.items()}
    longest = {name: max(most for _, most in found) for name, found in figures.items()}
    return {name: f"{statistics.median(rates[name]):,.0f} ({longest[name]:,.0f})" for name in ways}


def main(seconds: float) -> None:
    """Measure and print."""
    print(f"{machine('redis', 'pottery')}; locks a second (the longest, in ms)\n")
    found = {
        f"{count} server{'s' * (count > 1)}{', one paused' * is_paused}": measure(count, is_paused, seconds)
        for count, is_paused in ((1, False), (3, False), (5, False), (5, True))
    }
    table(("", *found["1 server"]), [(name, *cells.values()) for name, cells in found.items()])


if __name__ == "__main__":
    main(*arguments(1.0))
