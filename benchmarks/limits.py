"""A limit check beside a bare EVALSHA of the same size, and beside peers where they are installed.

Run: .venv/bin/python benchmarks/limits.py [rounds]
Peers are installed by `make bench-peers`, whose build/peers/bin/python runs it too.
"""

from __future__ import annotations

import contextlib
import hashlib
import operator
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # and not this folder, where `limits` would be this very file

from packmule.coordination.limits.concurrency import ConcurrencyLimit
from packmule.coordination.limits.rate_limit import SlidingWindow, TokenBucket
from packmule.coordination.redis.connection import connect
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.coordination.redis.scripts import Script

KEYS = 1000
BATCH = 100
BARE = "return {1, 99, 0, 600000}"
WRITING = f"redis.call('SET', KEYS[1], '1764000000000000', 'PX', 60000) {BARE}"
BASES = ("bare EVALSHA", "bare EVALSHA that writes as much")


def evalsha(client, source: str) -> Callable[[str], object]:
    """A call of the size of ours, with a script that has nothing to find out."""
    script = Script("coordination.limits", "take_tokens")
    script.source, script.sha = source, hashlib.sha1(source.encode()).hexdigest()
    return lambda key: script(client, [f"pm:rate:b:{key}"], [1, 600_000, 60_000_000, "1"])


def peers(url: str, client) -> dict[str, Callable[[str], object]]:
    ways: dict[str, Callable[[str], object]] = {}
    if find_spec("limits"):
        from limits import RateLimitItemPerMinute
        from limits.storage import RedisStorage
        from limits.strategies import (
            FixedWindowRateLimiter,
            MovingWindowRateLimiter,
            SlidingWindowCounterRateLimiter,
        )

        storage, many, few = RedisStorage(url), RateLimitItemPerMinute(10**9), RateLimitItemPerMinute(100)
        exact, counted, fixed = (
            strategy(storage)
            for strategy in (MovingWindowRateLimiter, SlidingWindowCounterRateLimiter, FixedWindowRateLimiter)
        )
        ways["limits, moving window (exact)"] = lambda key: exact.hit(few, key)
        ways["limits, sliding window counter"] = lambda key: counted.hit(many, key)
        ways["limits, fixed window"] = lambda key: fixed.hit(many, key)
    if find_spec("pyrate_limiter"):
        from pyrate_limiter import Duration, Limiter, Rate, RedisBucket

        bucket = RedisBucket.init([Rate(100, Duration.MINUTE)], client, "pyrate")
        limiter = Limiter(bucket)
        ways["pyrate-limiter (one key)"] = lambda key: limiter.try_acquire(key, blocking=False)
    return ways


def microseconds(way: Callable[[str], object], keys: list[str]) -> float:
    start = time.perf_counter()
    for key in keys:
        way(key)
    return (time.perf_counter() - start) / len(keys) * 1_000_000


def main(rounds: int) -> None:
    server = EmbeddedServer(Path(tempfile.mkdtemp(prefix="packmule-bench-")))
    try:
        server.ensure()
        with connect(None, server.data_dir) as client:
            bucket, window = TokenBucket(client, "b", "100/m"), SlidingWindow(client, "w", "100/m")
            refused = TokenBucket(client, "r", "1/d")
            slots = ConcurrencyLimit(client, "s", slots=2, lease=30)
            ways: dict[str, Callable[[str], object]] = {
                "bare EVALSHA": evalsha(client, BARE),
                "bare EVALSHA that writes as much": evalsha(client, WRITING),
                "token bucket, looking": bucket.peek,
                "token bucket": bucket.hit,
                "token bucket, refusing": refused.hit,
                "sliding window (exact)": window.hit,
                "slot taken and freed (two trips)": lambda key: slots.release(slots.acquire(key)),
                **peers(server.url, client),
            }
            keys = [f"10.0.{number >> 8}.{number & 255}" for number in range(KEYS)]
            figures: dict[str, list[float]] = {name: [] for name in ways}
            for way in ways.values():
                way(keys[0])
            for turn in range(rounds):
                some = [keys[(turn * BATCH + number) % KEYS] for number in range(BATCH)]
                for name, way in ways.items():
                    figures[name].append(microseconds(way, some))
            names = ["redis"]
            for name in ("limits", "pyrate-limiter"):
                with contextlib.suppress(ImportError):
                    version(name)
                    names.append(name)
            shown = ", ".join(f"{name} {version(name)}" for name in names)
            print(
                f"{os.cpu_count()} cores, Python {platform.python_version()}, {shown}, "
                f"Valkey {client.info('server')['valkey_version']} on a unix socket, {KEYS:,} keys; "
                f"medians of {rounds} turns of {BATCH}\n\n{'':47}x bare  x writing"
            )
        for name, values in figures.items():
            # Each beside the bare calls of its own turn, for the machine's pace drifts.
            ratios = [statistics.median(map(operator.truediv, values, figures[base])) for base in BASES]
            print(
                f"{name:34}{statistics.median(values):8.1f} µs" + "".join(f"{each:8.2f}" for each in ratios)
            )
    finally:
        server.stop()
        shutil.rmtree(server.data_dir)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
