"""Jobs with gates: singletons, slots, rates and turns. Each notes when it begins and ends."""

from __future__ import annotations

import time

from pool_jobs import note

from jobs import current, job


def _run(path: str, name: str, seconds: float) -> None:
    note(path, f"+{name}")
    time.sleep(seconds)
    note(path, f"-{name}")


@job(singleton=True)
def alone(path: str, name: str, seconds: float = 0.0) -> None:
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
    note(path, f"{domain} {time.time()}")


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
