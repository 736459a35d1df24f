"""A cache hit beside a bare GET of the same bytes, in one run.

Run: .venv/bin/python benchmarks/cache.py [rounds]
"""

from __future__ import annotations

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
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])

from packmule.coordination.cache.cache import Cache
from packmule.coordination.redis.connection import connect
from packmule.coordination.redis.embedded_server import EmbeddedServer

BATCH = 50
SMALL = {"eur": 12, "name": "a chair", "tags": ["wood", "red"]}
BASE = "bare GET, as redis-py sends it"


def ways(client, cache) -> dict[str, Callable[[], object]]:
    cache.put("json", SMALL, ttl=3600)
    cache.put("tagged", SMALL, ttl=3600, tags=["a", "b"])
    cache.put("bytes", bytes(100_000), ttl=3600)
    connection = client.connection_pool.get_connection()

    def bare(*command: str) -> object:
        connection.send_packed_command(connection.pack_command(*command), check_health=False)
        return connection.read_response()

    function = cache.cached(ttl=3600, key="function/{a}")(lambda a: SMALL)
    return {
        BASE: lambda: client.get("pm:cache:bench:json"),
        "bare GET, without the client's pool": lambda: bare("GET", "pm:cache:bench:json"),
        "hit": lambda: cache.get_or_compute("json", dict, ttl=3600),
        "hit, two tags": lambda: cache.get_or_compute("tagged", dict, ttl=3600, tags=["a", "b"]),
        "hit, get": lambda: cache.get("json"),
        "hit, decorated function": lambda: function(7),
        "bare GET of 100 kB": lambda: client.get("pm:cache:bench:bytes"),
        "hit, 100 kB": lambda: cache.get("bytes"),
    }


def microseconds(way: Callable[[], object]) -> float:
    start = time.perf_counter()
    for _ in range(BATCH):
        way()
    return (time.perf_counter() - start) / BATCH * 1_000_000


def main(rounds: int) -> None:
    server = EmbeddedServer(Path(tempfile.mkdtemp(prefix="packmule-bench-")))
    try:
        server.ensure()
        with connect(None, server.data_dir) as client, Cache(client, "bench") as cache:
            measured = ways(client, cache)
            figures: dict[str, list[float]] = {name: [] for name in measured}
            for way in measured.values():
                way()
            for _ in range(rounds):
                for name, way in measured.items():
                    figures[name].append(microseconds(way))
            print(
                f"{os.cpu_count()} cores, Python {platform.python_version()}, redis {version('redis')}, "
                f"Valkey {client.info('server')['valkey_version']} on a unix socket; "
                f"medians of {rounds} turns of {BATCH}\n\n{'':48}x GET"
            )
        for name, values in figures.items():
            # Each beside the bare GETs of its own turn, for the machine's pace drifts.
            base = figures["bare GET of 100 kB" if "100 kB" in name else BASE]
            ratio = statistics.median(map(operator.truediv, values, base))
            print(f"{name:36}{statistics.median(values):7.1f} µs{ratio:8.2f}")
    finally:
        server.stop()
        shutil.rmtree(server.data_dir)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
