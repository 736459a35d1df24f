"""Counters: named numbers and words in one hash, changed atomically, gone after a while."""

from __future__ import annotations

from redis import Redis

KEEP_SECONDS = 86_400

Values = dict[
    bytes | bytearray | memoryview | str | int | float, bytes | bytearray | memoryview | str | int | float
]
"""Names and values as redis-py's `hset` takes them."""


def store(client: Redis, key: str, values: Values, keep: int = KEEP_SECONDS) -> None:
    """Set counters of `key` to `values`, and keep them for `keep` seconds from now; one round trip."""
    with client.pipeline(transaction=False) as pipeline:
        pipeline.hset(key, mapping=values)
        pipeline.expire(key, keep)
        pipeline.execute()


def increment(client: Redis, key: str, name: str, by: float = 1, keep: int = KEEP_SECONDS) -> float:
    """Raise one counter by `by` and return its new value; safe from any number of processes.

    A connection lost in between makes it count twice, for the command is sent again.
    """
    with client.pipeline(transaction=False) as pipeline:
        pipeline.hincrbyfloat(key, name, by)
        pipeline.expire(key, keep)
        return float(pipeline.execute()[0])


def read(client: Redis, key: str) -> dict[str, str]:
    """All counters of `key` as text; empty where there are none.

    >>> store(client, "pm:progress:1", {"done": 3, "total": 4})  # doctest: +SKIP
    >>> read(client, "pm:progress:1")  # doctest: +SKIP
    {'done': '3', 'total': '4'}
    """
    return {_text(name): _text(value) for name, value in client.hgetall(key).items()}


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
