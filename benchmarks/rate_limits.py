"""A check of a limit beside a bare EVALSHA of the same size, and beside peers that are installed.

    python benchmarks/rate_limits.py [rounds]

`make bench-peers` makes an environment, build/peers, that has the peers.
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Callable, Iterator
from itertools import cycle

from harness import arguments, by_turns, client_of, has, machine, microseconds, ratio, table

from packmule.coordination.limits.concurrency import ConcurrencyLimit
from packmule.coordination.limits.rate_limit import SlidingWindow, TokenBucket
from packmule.coordination.redis.scripts import Script
from packmule.testing import private_server

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
    if has("limits"):
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
    if has("pyrate-limiter"):
        from pyrate_limiter import Duration, Limiter, Rate, RedisBucket

        bucket = RedisBucket.init([Rate(100, Duration.MINUTE)], client, "pyrate")
        limiter = Limiter(bucket)
        ways["pyrate-limiter (one key)"] = lambda key: limiter.try_acquire(key, blocking=False)
    return ways


def timed(way: Callable[[str], object], keys: Iterator[str]) -> Callable[[], float]:
    """The microseconds of a call, over the next BATCH of `keys`."""
    return lambda: microseconds(BATCH, lambda: way(next(keys)))


def main(rounds: int) -> None:
    """Measure and print."""
    with private_server() as server, client_of(server) as client:
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
        for way in ways.values():
            way(keys[0])
        figures = by_turns({name: timed(way, cycle(keys)) for name, way in ways.items()}, rounds)
        print(
            f"{machine('redis', 'limits', 'pyrate-limiter', client=client)}; {KEYS:,} keys, medians of "
            f"{rounds} rounds of {BATCH}\n"
        )
    rows = [
        (
            name,
            f"{statistics.median(values):.1f} µs",
            *(f"{ratio(values, figures[base]):.2f}" for base in BASES),
        )
        for name, values in figures.items()
    ]
    table(("", "a call", "x bare", "x writing"), rows)


if __name__ == "__main__":
    main(*arguments(200))
