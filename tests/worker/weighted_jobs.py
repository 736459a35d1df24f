"""Jobs that take of their limits what an argument says."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from packmule import current, job
from packmule.tests.worker.pool_jobs import note

MOST = 100


@job(concurrency=f"{MOST} cost {{size}}", fair="{tenant}", retries=1, retry_intervals=[0])
def decode(size: float, tenant: str = "a") -> None: ...


@job(concurrency=f"{MOST} by {{host}} cost {{size}}", retries=20, retry_intervals=[0])
def decode_noting(path: str, host: str, size: int, name: str, seconds: float = 0.0) -> None:
    note(path, f"+ {name} {size} {os.getpid()} {time.monotonic():.6f}")
    time.sleep(seconds)
    note(path, f"- {name} {size} {os.getpid()} {time.monotonic():.6f}")


@job(rate="100/h burst 100 by {model} cost {tokens}")
def complete(model: str, tokens: float, used: int | None = None) -> None:
    if used is not None:
        current.spent(used)


@job(rate="100/h burst 100 by {model} cost {tokens}", isolate=True)
def complete_isolated(model: str, tokens: float, used: int) -> None:
    current.spent(used + 10)
    current.spent(used)


@job(rate="100/h burst 100 by {model} cost {tokens}")
async def complete_async(model: str, tokens: float, used: int) -> None:
    await asyncio.sleep(0)
    current.spent(used)


@job(concurrency="100 cost {size}", rate="1/h burst 1 by {domain}")
def decode_rarely(size: int, domain: str) -> None: ...


@job(concurrency="10 cost {size}")
def anything(size: Any = 3) -> None: ...


@job(singleton="{account}", concurrency="100 cost {size}", singleton_policy="replace")
def decode_alone(account: str, size: int) -> None: ...


@job(concurrency=f"{MOST} per host cost {{size}}", fair="{tenant}", retries=1, retry_intervals=[0])
def decode_on_host(size: int, tenant: str = "a") -> None: ...


@job(concurrency="2 per host")
def two_a_host(name: str = "") -> None: ...


@job(concurrency=f"{MOST} per host cost {{size}}", retries=20, retry_intervals=[0])
def on_host(path: str, size: int, name: str, seconds: float = 0.0) -> None:
    note(path, f"+ {name} {size} {os.getppid()} {os.getpid()} {time.monotonic():.6f}")
    time.sleep(seconds)
    note(path, f"- {name} {size} {os.getppid()} {os.getpid()} {time.monotonic():.6f}")
