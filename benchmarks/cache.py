"""A cache hit beside a bare GET of the same bytes, in one run.

python benchmarks/cache.py [rounds]
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial

from harness import arguments, by_turns, client_of, machine, microseconds, ratio, table

from packmule.coordination.cache.cache import Cache
from packmule.testing import private_server

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


def main(rounds: int) -> None:
    """Measure and print."""
    with private_server() as server, client_of(server) as client, Cache(client, "bench") as cache:
        measured = ways(client, cache)
        for way in measured.values():
            way()
        timed = {name: partial(microseconds, BATCH, way) for name, way in measured.items()}
        figures = by_turns(timed, rounds)
        print(f"{machine('redis', client=client)}; medians of {rounds} rounds of {BATCH}\n")
    rows = []
    for name, values in figures.items():
        base = figures["bare GET of 100 kB" if "100 kB" in name else BASE]
        rows.append((name, f"{statistics.median(values):.1f} µs", f"{ratio(values, base):.2f}"))
    table(("", "a call", "x GET"), rows)


if __name__ == "__main__":
    main(*arguments(100))
