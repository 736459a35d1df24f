"""What the jobs of every Python system do, as plain functions and as coroutines."""

from __future__ import annotations

import asyncio
import os
import time
from functools import cache

import redis
import redis.asyncio

URL = os.environ.get("BENCH_URL", "")
COUNTER = "bench:count"
NAP_SECONDS = 0.01


def noop() -> int:
    return 1


def mark(value: float = 0.0) -> int:
    """Note process, `value` and time in the file of marks, by one write that no other can tear."""
    now = time.time()
    os.write(_marks(), f"{os.getpid()} {value} {now}\n".encode())
    return 1


def incr() -> int:
    _client().incr(COUNTER)
    return 1


def nap() -> int:
    time.sleep(NAP_SECONDS)
    return mark()


async def async_noop() -> int:
    return noop()


async def async_mark(value: float = 0.0) -> int:
    return mark(value)


async def async_incr() -> int:
    await _async_client().incr(COUNTER)
    return 1


async def async_nap() -> int:
    await asyncio.sleep(NAP_SECONDS)
    return mark()


PLAIN = {"noop": noop, "mark": mark, "incr": incr, "nap": nap}
ASYNC = {"noop": async_noop, "mark": async_mark, "incr": async_incr, "nap": async_nap}


@cache
def _marks() -> int:
    return os.open(os.environ["BENCH_MARKS"], os.O_WRONLY | os.O_APPEND)


@cache
def _client() -> redis.Redis:
    return redis.Redis.from_url(URL)


@cache
def _async_client() -> redis.asyncio.Redis:
    return redis.asyncio.Redis.from_url(URL)
