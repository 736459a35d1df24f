"""Leaderboards: the highest scores hour by hour, in sorted sets of bounded size."""

from __future__ import annotations

import time
from collections import Counter
from typing import cast

from redis import Redis

HOUR = 3600
KEEP_HOURS = 8 * 24


class Leaderboard:
    """The leaderboard `name`: for each hour the `size` members with the highest scores, for eight days.

    >>> board = Leaderboard(client, "sellers")  # doctest: +SKIP
    >>> board.add("ada", 12.5)  # doctest: +SKIP
    >>> board.top(10, hours=24)  # doctest: +SKIP
    [('ada', 12.5)]
    """

    def __init__(self, client: Redis, name: str, size: int = 100) -> None:
        if size < 1 or not name:
            raise ValueError(f"name={name!r}, size={size}: give a name, and a size of at least 1")
        self.client = client
        self.name = name
        self.size = size

    def key(self, hour: int) -> str:
        """The sorted set of an hour, counted from 1970."""
        return f"pm:top:{self.name}:{hour}"

    def add(self, member: str, score: float) -> None:
        """Add to a member's score of this hour. A member that drops off the leaderboard restarts at 0."""
        self._write(member, score, is_sum=True)

    def best(self, member: str, score: float) -> None:
        """Record a score; the member's highest of this hour counts."""
        self._write(member, score, is_sum=False)

    def top(self, count: int = 10, hours: int = 1) -> list[tuple[str, float]]:
        """The highest sums of `add` scores over the last `hours` hours, this one included."""
        return self._top(count, hours, is_sum=True)

    def top_best(self, count: int = 10, hours: int = 1) -> list[tuple[str, float]]:
        """The highest `best` scores over the last `hours` hours, one per member."""
        return self._top(count, hours, is_sum=False)

    def _write(self, member: str, score: float, *, is_sum: bool) -> None:
        key = self.key(int(time.time()) // HOUR)
        with self.client.pipeline() as pipeline:
            if is_sum:
                pipeline.zincrby(key, score, member)
            else:
                pipeline.zadd(key, {member: score}, gt=True)
            pipeline.zremrangebyrank(key, 0, -self.size - 1)
            pipeline.expire(key, KEEP_HOURS * HOUR)
            pipeline.execute()

    def _top(self, count: int, hours: int, *, is_sum: bool) -> list[tuple[str, float]]:
        now = int(time.time()) // HOUR
        with self.client.pipeline(transaction=False) as pipeline:
            for hour in range(now - max(1, min(hours, KEEP_HOURS)) + 1, now + 1):
                pipeline.zrevrange(self.key(hour), 0, self.size - 1, withscores=True)
            found = cast(list[list[tuple[bytes, float]] | Exception], pipeline.execute(raise_on_error=False))
        scores: Counter[str] = Counter()
        for each in found:
            if not isinstance(each, list):
                continue  # the key holds another type
            for member, score in each:
                name = member.decode(errors="replace")
                scores[name] = scores[name] + score if is_sum else max(scores[name], score)  # type: ignore[assignment]
        return [(name, float(score)) for name, score in scores.most_common(count)]
