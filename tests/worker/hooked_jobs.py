"""Jobs that end in each way, for the tests of hooks."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from contextlib import suppress
from contextvars import ContextVar
from typing import Annotated

from packmule import Retry, Secret, current, job

BOUND = ContextVar("BOUND", default="nothing")


@job
def add(a: int, b: int = 0) -> int:
    return a + b


@job
def fails() -> None:
    raise ZeroDivisionError("division by zero")


@job
def pays(card: Annotated[str, Secret], pin: Annotated[str, Secret], note: str) -> None:
    known = {"card": card, "of": [card, note]}
    logging.getLogger("shop").error("no account has the card %s", card)
    raise LookupError(f"unknown: {known}")


@job(retries=1, retry_intervals=[0])
def fails_once() -> None:
    if current.resume(0) == 0:
        current.checkpoint(1)
        raise ValueError("not yet")


@job
def asks_again() -> None:
    raise Retry(limit=2)


@job(isolate=True)
def apart() -> int:
    return os.getpid()


@job
async def later(value: int) -> int:
    await asyncio.sleep(0)
    return value


@job
def refused() -> None:
    raise AssertionError("the body ran")


@job(retries=1, retry_intervals=[0])
def hook_breaks(when: str) -> str:
    return when


@job(retries=1, retry_intervals=[0])
async def hook_breaks_later(when: str) -> str:
    return when


@job
def swallowed() -> float:
    return 1 / 0


@job
def endless() -> None:
    while True:
        time.sleep(0.01)


@job(isolate=True)
def fails_apart() -> None:
    raise LookupError("not here")


@job(isolate=True, network=False)
def fails_sealed() -> None:
    raise LookupError("not even there")


@job(isolate=True)
def endless_apart() -> None:
    while True:
        with suppress(BaseException):
            time.sleep(0.01)


@job(timeout=1)
def bound_for_long() -> str:
    return BOUND.get()


@job
def bound() -> str:
    return BOUND.get()


@job
async def bound_later() -> str:
    return BOUND.get()
