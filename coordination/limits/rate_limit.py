"""Rate limits by key, atomic and on the server's clock: a token bucket and an exact sliding window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from redis import Redis
from redis.exceptions import ResponseError

from packmule.coordination.keys import bounded, named, taken
from packmule.coordination.limits.rate import MICROSECONDS, Rate
from packmule.coordination.redis.scripts import Script
from packmule.errors import Conflict
from packmule.units import span

LARGEST_WINDOW = 10_000
"""The most events a sliding window may hold: it stores each of them, at about ten bytes."""


class RateLimitExceeded(Conflict, RuntimeError):
    """The rate is exceeded; in `retry_after` seconds the same call is allowed if no other comes before."""

    def __init__(self, key: str, rate: Rate, retry_after: float) -> None:
        super().__init__(f"{key} is limited to {rate}: try again in {span(retry_after)}")
        self.key = key
        self.rate = rate
        self.retry_after = retry_after


class Answer(NamedTuple):
    """Whether the call was allowed, and the state of the limit after it.

    `remaining` is how many more events are allowed at once. Unless other events come, the same call is
    allowed in `retry_after` seconds (0.0 if it was), and the full limit in `reset_after` seconds.
    """

    allowed: bool
    remaining: int
    retry_after: float
    reset_after: float


class RateLimit:
    """The interface of both limits; use `TokenBucket` or `SlidingWindow`.

    `name` separates this limit's keys from those of others: letters, digits and `. _ -`. Each `key` (an
    address, a tenant, a token; any text) is limited separately. `cost` is how many events a call counts as.
    A call takes one round trip. If the connection is lost, it is repeated and may count twice. Calls raise
    `KeyTaken` if the key holds a value that no limit wrote.
    """

    _script: ClassVar[Script]
    _prefix: ClassVar[str]
    _numbers: tuple[int, int]
    most: int

    def __init__(self, client: Redis, name: str, rate: Rate | str) -> None:
        self.client = client
        self.name = named(name)
        self.rate = rate if isinstance(rate, Rate) else Rate.parse(rate)

    def hit(self, key: str, cost: int = 1) -> Answer:
        """Count `cost` events of `key` if they are allowed now. A refused call counts nothing.

        Raises `ValueError` for a cost that can never be allowed.

        >>> logins = SlidingWindow(client, "logins", "5/m")  # doctest: +SKIP
        >>> logins.hit("10.0.0.1")  # doctest: +SKIP
        Answer(allowed=True, remaining=4, retry_after=0.0, reset_after=60.0)
        """
        return self._ask(key, cost, "1")

    def require(self, key: str, cost: int = 1) -> Answer:
        """Like `hit`, but raises `RateLimitExceeded` if the call is refused."""
        answer = self.hit(key, cost)
        if not answer.allowed:
            raise RateLimitExceeded(key, self.rate, answer.retry_after)
        return answer

    def hit_each(self, keys: Sequence[str]) -> list[Answer]:
        """`hit` each of `keys` once, in order and in one round trip; a key may be there several times."""
        calls = [([self.key(key)], [1, *self._numbers, "1"]) for key in keys]
        answers = []
        for (stored_at, _), reply in zip(calls, self._script.each(self.client, calls), strict=True):
            if isinstance(reply, ResponseError):
                raise taken(reply, stored_at[0], type(self).__name__) from None
            if isinstance(reply, Exception):
                raise reply
            answers.append(_answer(reply))
        return answers

    def peek(self, key: str, cost: int = 1) -> Answer:
        """What `hit` would answer, without counting anything; `remaining` is what is left now."""
        return self._ask(key, cost, "0")

    def reset(self, key: str) -> None:
        """Forget all events of `key`."""
        self.client.delete(self.key(key))

    def key(self, key: str) -> str:
        """The Redis key that stores the state of `key`."""
        return f"{self._prefix}:{self.name}:{bounded(key)}"

    def _ask(self, key: str, cost: int, count: str) -> Answer:
        if not isinstance(cost, int) or isinstance(cost, bool) or not 1 <= cost <= self.most:
            raise ValueError(f"cost={cost!r}: {self.rate} allows whole numbers from 1 to {self.most}")
        stored_at = self.key(key)
        try:
            return _answer(self._script(self.client, [stored_at], [cost, *self._numbers, count]))
        except ResponseError as error:
            raise taken(error, stored_at, type(self).__name__) from None


def _answer(reply: Sequence[int]) -> Answer:
    allowed, remaining, retry_after, reset_after = reply
    return Answer(allowed == 1, remaining, retry_after / MICROSECONDS, reset_after / MICROSECONDS)


class TokenBucket(RateLimit):
    """An average rate with bursts: cheap at any size, for work that should flow at an even pace.

    In any span of `s` seconds it allows at most `burst + s * limit / period` events. After a pause, `100/m`
    allows 199 in a minute; `100/m burst 1` allows one every 0.6 s.
    """

    _script = Script("coordination.limits", "take_tokens")
    _prefix = "pm:rate"

    def __init__(self, client: Redis, name: str, rate: Rate | str) -> None:
        super().__init__(client, name, rate)
        self.most = self.rate.burst
        self._numbers = self.rate.interval_us, self.rate.capacity_us


class SlidingWindow(RateLimit):
    """At most `limit` events in any span of the period's length, to the microsecond: for logins and quotas.

    It stores each event of the last period, at most `LARGEST_WINDOW`. Raises `ValueError` for a rate with a
    larger limit or with a burst.
    """

    _script = Script("coordination.limits", "count_in_window")
    _prefix = "pm:window"

    def __init__(self, client: Redis, name: str, rate: Rate | str) -> None:
        super().__init__(client, name, rate)
        if self.rate.limit > LARGEST_WINDOW:
            raise ValueError(
                f"{self.rate}: a sliding window counts up to {LARGEST_WINDOW:,} events: use a TokenBucket"
            )
        if self.rate.burst != self.rate.limit:
            raise ValueError(f"{self.rate}: a sliding window has no burst: omit it, or use a TokenBucket")
        self.most = self.rate.limit
        self._numbers = self.rate.limit, self.rate.period_us
