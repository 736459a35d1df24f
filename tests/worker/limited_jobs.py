"""Jobs with limits: singletons, slots, rates and turns. Each notes when it begins and ends."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from redis import Redis

from packmule import current, job
from packmule.coordination.limits.rate import Rate
from packmule.coordination.locks.fence import read, write
from packmule.tests.worker.pool_jobs import note

MOST_SLOTTED = 3
MOST_WEIGHED = 100
RATE = Rate.parse("20/s burst 5")


def _run(path: str, name: str, seconds: float) -> None:
    note(path, f"+{name}")
    time.sleep(seconds)
    note(path, f"-{name}")


@job(singleton=True)
def alone(path: str, name: str, seconds: float = 0.0) -> None:
    _run(path, name, seconds)


@job(singleton=True)
async def alone_async(path: str, name: str, seconds: float = 0.0) -> None:
    note(path, f"+{name}")
    await asyncio.sleep(seconds)
    note(path, f"-{name}")


@job(singleton=True)
def alone_when_told(path: str, gate: str, name: str) -> None:
    note(path, f"+{name}")
    while not Path(gate).exists():
        time.sleep(0.01)
    note(path, f"-{name}")


@job(singleton=True, isolate=True)
def alone_isolated(path: str, name: str, seconds: float = 0.0) -> None:
    _run(path, name, seconds)


@job(singleton="{account}", retries=1, retry_intervals=[0])
def alone_by_account(path: str, account: str, name: str, seconds: float = 0.0) -> None:
    _run(path, name, seconds)


@job(singleton=True, singleton_policy="skip")
def skips(path: str, name: str, seconds: float = 0.0) -> None:
    _run(path, name, seconds)


@job(singleton=True, singleton_policy="replace")
def replaces(path: str, name: str, seconds: float = 0.0) -> None:
    _run(path, name, seconds)


@job(concurrency="2 by {tenant}")
def two_a_tenant(path: str, tenant: str, name: str, seconds: float = 0.0) -> None:
    _run(path, f"{tenant}{name}", seconds)


@job(rate="10/s burst 1 by {domain}")
def ten_a_second(path: str, domain: str, name: str) -> None:
    note(path, f"{domain} {name}")


@job(rate="1/m burst 1 by {domain}")
def one_a_minute(path: str, domain: str, name: str) -> None:
    note(path, f"{domain} {name}")


@job(fair="{tenant}")
def in_turn(path: str, tenant: str) -> None:
    note(path, tenant)


@job(singleton=True)
def fenced() -> int | None:
    return current.fence()


@job(singleton=True, isolate=True)
def fenced_isolated() -> int | None:
    return current.fence()


@job(singleton="{number}")
async def fenced_async(number: int) -> int | None:
    return current.fence()


@job(concurrency=1, fair="{tenant}")
def fair_slot(path: str, tenant: str) -> None:
    note(path, tenant)


@job(concurrency=1, rate="1/h burst 1 by {domain}")
def slot_and_rate(path: str, domain: str) -> None:
    note(path, domain)


@job(singleton="{key}", retries=20, retry_intervals=[0])
def counted(place: str, key: str, name: str, seconds: float) -> None:
    """Add one to a guarded count outside of the job server, and enter it in the ledger."""
    _enter(place, "begin", key, name)
    with Redis.from_url((Path(place) / "url").read_text()) as guarded:
        fence = current.fence() or 0
        count = int(read(guarded, key, fence) or 0)
        time.sleep(seconds)
        write(guarded, key, count + 1, fence)
        _enter(place, "wrote", key, name)


@job(concurrency=f"{MOST_SLOTTED} by {{key}}", retries=20, retry_intervals=[0])
def slotted(place: str, key: str, name: str, seconds: float) -> None:
    _enter(place, "begin", key, name)
    time.sleep(seconds)
    _enter(place, "wrote", key, name)


@job(concurrency=f"{MOST_WEIGHED} by {{key}} cost {{size}}", retries=20, retry_intervals=[0])
def weighed(place: str, key: str, name: str, seconds: float, size: int) -> None:
    _enter(place, "begin", key, name)
    time.sleep(seconds)
    _enter(place, "wrote", key, name)


@job(concurrency=f"{MOST_WEIGHED} per host cost {{size}}", retries=20, retry_intervals=[0])
def weighed_on_host(place: str, key: str, name: str, seconds: float, size: int) -> None:
    """Do the same, and enter the host with the key, as `run_pool.py` says it."""
    weighed(place, f"{key}@{os.environ['MACHINE']}", name, seconds, size)


@job(rate=f"{RATE} by {{key}}", retries=20, retry_intervals=[0])
def rated(place: str, key: str, name: str, seconds: float) -> None:
    _enter(place, "begin", key, name)
    _enter(place, "wrote", key, name)


@job(fair="{key}", retries=20, retry_intervals=[0])
def fair(place: str, key: str, name: str, seconds: float) -> None:
    _enter(place, "begin", key, name)
    _enter(place, "wrote", key, name)


def _enter(place: str, what: str, key: str, name: str) -> None:
    # One short write to a file opened for appending is there whole or not at all, whoever is killed.
    line = f"{what} {key} {name} {current.fence() or 0} {os.getpid()} {time.monotonic():.6f}\n"
    ledger = os.open(Path(place) / "ledger", os.O_WRONLY | os.O_APPEND)
    os.write(ledger, line.encode())
    os.close(ledger)
