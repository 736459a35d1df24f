"""Forked processes that ask a cache for the same key."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Callable
from typing import Any

from packmule.coordination.cache.cache import Cache
from packmule.coordination.redis.connection import connect

forked = multiprocessing.get_context("fork")


def ask(data_dir, start, sender, seconds: float, options: dict[str, Any], terms: dict[str, Any]) -> None:
    """Ask once; returns the value and the time it took. A computation is counted and takes `seconds`."""
    with connect(None, data_dir) as client, Cache(client, "race", **options) as cache:

        def compute() -> int:
            number = client.incr("computations")
            time.sleep(seconds)
            return number

        start.wait()
        begun = time.monotonic()
        value = cache.get_or_compute("cold", compute, **terms)
        sender.send((value, time.monotonic() - begun))


def crowd(
    data_dir, number: int, seconds: float, options: dict[str, Any], terms: dict[str, Any]
) -> list[tuple[int, float]]:
    """The answers of many processes that ask at once."""
    start, pipes, processes = forked.Barrier(number), [], []
    for _ in range(number):
        receiver, sender = forked.Pipe(duplex=False)
        pipes.append(receiver)
        processes.append(forked.Process(target=ask, args=(data_dir, start, sender, seconds, options, terms)))
        processes[-1].start()
        sender.close()
    answers = [pipe.recv() for pipe in pipes]
    for process in processes:
        process.join()
    return answers


ENOUGH = 20
"""The fewest changes that make a race meaningful."""


def race(data_dir, seed: int, ends: float, sender) -> None:
    """Read and change values: each must be as new as the last invalidation before the read.

    A change is known to others as `settled` when it has been invalidated.
    """
    chance, reads, old = random.Random(seed), 0, []
    with connect(None, data_dir) as client, Cache(client, "race", lease=0.15) as cache:
        settle = client.register_script(
            "local known = tonumber(redis.call('GET', KEYS[1]) or 0)\n"
            "redis.call('SET', KEYS[1], math.max(known, tonumber(ARGV[1])))"
        )

        def compute() -> int:
            value = int(client.get("truth") or 0)
            # Sometimes longer than the lease, and without renewal.
            time.sleep(chance.choice([0.0, 0.001, 0.01]))
            if chance.random() < 0.02:
                cache._renewer.reset()
                time.sleep(0.2)
            return value

        # On a busy machine it continues until there were enough changes.
        while time.time() < ends or (int(client.get("settled") or 0) <= ENOUGH and time.time() < ends + 60):
            if chance.random() < 0.2:
                changed = client.incr("truth")
                if chance.random() < 0.5:
                    cache.invalidate("value")
                else:
                    cache.invalidate_tag("tag")
                settle(["settled"], [changed])
            settled = int(client.get("settled") or 0)
            value = cache.get_or_compute(
                "value", compute, ttl=chance.choice([0.02, 60]), stale_ttl=60, tags=["tag"]
            )
            reads += 1
            if value < settled:
                old.append((value, settled))
    sender.send((reads, old))


def run(target: Callable[..., None], *args: Any) -> Any:
    """Start a process that the test may kill."""
    process = forked.Process(target=target, args=args)
    process.start()
    return process


if __name__ == "__main__":  # python tests/coordination/cache_worker.py 200
    import shutil
    import sys
    import tempfile
    from pathlib import Path

    from packmule.coordination.redis.embedded_server import EmbeddedServer

    server = EmbeddedServer(Path(tempfile.mkdtemp(prefix="packmule-cache-")))
    try:
        server.ensure()
        found = crowd(server.data_dir, int(sys.argv[1]), 1.0, {}, {"ttl": 60})
        waits = sorted(wait for _, wait in found)
        print(
            f"{len(found)} processes, {len({value for value, _ in found})} value, longest {waits[-1]:.2f} s"
        )
        with connect(None, server.data_dir) as client:
            print(f"computed {int(client.get('computations') or 0)} times")
    finally:
        server.stop()
        shutil.rmtree(server.data_dir)
