"""Locks taken and released a second over 1, 3 and 5 servers, and over 5 with one paused: ours and pottery's.

    python benchmarks/locks.py [seconds a measurement]

Each server is a Valkey of its own behind a socket of this machine. The ways take turns; each figure is the
median of three measurements, with the longest time that one lock took, in milliseconds. Without pottery only
ours is measured: `make bench-peers` makes an environment, build/peers, that has it.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import redis

from packmule.coordination.locks.redlock import Redlock
from packmule.coordination.redis.embedded_server import EmbeddedServer

ROUNDS = 3
SOCKET_TIMEOUT = 5.0
"""Seconds after which pottery's clients give a paused server up; by default they never do."""


@contextmanager
def server() -> Iterator[EmbeddedServer]:
    started = EmbeddedServer(Path(tempfile.mkdtemp(prefix="packmule-")))
    started.ensure()
    try:
        yield started
    finally:
        started.stop()
        shutil.rmtree(started.data_dir)


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


def measure(ways: dict[str, Callable[[], object]], seconds: float) -> dict[str, tuple[float, float]]:
    """Of each way: locks a second, and the longest time in milliseconds."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    longest = dict.fromkeys(ways, 0.0)
    for _ in range(ROUNDS):
        for name, once in ways.items():
            taken, begun = 0, time.perf_counter()
            now = begun
            while now - begun < seconds:
                once()
                before, now = now, time.perf_counter()
                longest[name] = max(longest[name], (now - before) * 1000)
                taken += 1
            rates[name].append(taken / (now - begun))
    return {name: (statistics.median(rates[name]), longest[name]) for name in ways}


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    peers = find_spec("pottery") is not None
    peer = f"pottery {version('pottery')}" if peers else "pottery is not installed"
    print(f"Python {platform.python_version()}, redis-py {version('redis')}, {peer}, {os.cpu_count()} cores")
    print(f"{'locks/s (longest, ms)':24}{'ours':>18}{'ours, renewed':>18}{'pottery':>18}")
    for count, paused in ((1, False), (3, False), (5, False), (5, True)):
        with ExitStack() as closing:
            servers = [closing.enter_context(server()) for _ in range(count)]
            ways = {"ours": ours(servers, renew=False), "ours, renewed": ours(servers, renew=True)}
            if peers:
                ways["pottery"] = pottery(servers)
            for once in ways.values():
                once()
            if paused:
                pid = servers[-1].pid()
                os.kill(pid, signal.SIGSTOP)
                closing.callback(os.kill, pid, signal.SIGCONT)
            figures = measure(ways, seconds)
        row = "".join(f"{rate:10,.0f} ({most:5,.0f})" for rate, most in figures.values())
        print(f"{count} server{'s' * (count > 1)}{', one paused' * paused:15}".ljust(24) + row)


if __name__ == "__main__":
    main()
