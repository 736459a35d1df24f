"""How many commands a call makes the server run, those inside of scripts included."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from redis import Redis


def looks(client: Redis, do: Callable[[], Any]) -> tuple[int, int]:
    """Call `do`; return how many commands it cost, and how many its costliest script can have run.

    Scripts are called with `EVALSHA`; the second number is the average if `do` calls several.
    """
    client.config_resetstat()
    do()
    found: Any = client.info("commandstats")
    calls = {name.removeprefix("cmdstat_"): int(stats["calls"]) for name, stats in found.items()}
    scripts = calls.pop("evalsha", 0) + calls.pop("eval", 0)
    total = sum(calls.values())
    return total, total // max(1, scripts)


@contextmanager
def monitored(client: Redis) -> Iterator[list[str]]:
    """Yield a list that has, once the block has ended, the commands that the server ran meanwhile."""
    commands: list[str] = []
    mark = "the block has ended"
    with client.monitor() as monitor:
        yield commands
        client.echo(mark)
        for each in monitor.listen():
            if mark in each["command"]:
                return
            commands.append(each["command"])
