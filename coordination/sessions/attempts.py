"""Attempts: each key has some for nothing, and then waits longer after each, until it has been quiet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from redis import Redis

from packmule.coordination.keys import bounded, named
from packmule.coordination.redis.scripts import Script
from packmule.errors import Conflict, UsageError
from packmule.units import DAY, span

MOST_FREE = 10_000
SHORTEST = 0.001

_attempt = Script("coordination.sessions", "attempt")
_give_back = Script("coordination.sessions", "give_back")


class TooManyAttempts(Conflict, RuntimeError):
    """A key has to wait; in `retry_after` seconds the same attempt is allowed if no other comes before."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"too many attempts: try again in {span(retry_after)}")
        self.retry_after = retry_after


class InvalidPace(UsageError, ValueError):
    """A pace of attempts with a number out of range."""


@dataclass(frozen=True, slots=True)
class Pace:
    """`free` attempts come at once; then each waits: `first` seconds, doubled each time, up to `longest`.

    After `forgotten` seconds without an attempt that counts, all are forgotten.
    """

    free: int = 5
    first: float = 2.0
    longest: float = 300.0
    forgotten: float = 3600.0

    def __post_init__(self) -> None:
        spans = (self.first, self.longest, self.forgotten)
        if not 1 <= self.free <= MOST_FREE or not all(SHORTEST <= each <= DAY for each in spans):
            raise InvalidPace(f"{self}: give 1 to {MOST_FREE:,} free attempts, and spans of up to a day")


class Attempts:
    """Attempts of one kind, `name`, counted by the server's clock; the same in all processes.

    A refused attempt counts nothing, so the wait ends however often somebody asks. An attempt counts before
    it is made, so many at once are no more than one after another.

    >>> logins = Attempts(client, "logins", {"ip": Pace(free=20), "user": Pace()})  # doctest: +SKIP
    >>> logins.begin(ip="10.0.0.1", user="ada")  # doctest: +SKIP
    >>> logins.forgive(user="ada")  # doctest: +SKIP
    """

    def __init__(self, client: Redis, name: str, paces: Mapping[str, Pace]) -> None:
        self.client = client
        self.name = named(name)
        self.paces = {named(kind): pace for kind, pace in paces.items()}

    def begin(self, **keys: str) -> None:
        """Count an attempt under all `keys`, named by the kinds of paces. Raises `TooManyAttempts`.

        It counts under all or none, in one round trip. A call that is sent again after a lost reply may count
        twice.
        """
        rules: list[float] = []
        for kind in keys:
            pace = self.paces[kind]
            rules += [pace.free, pace.first, pace.longest, pace.forgotten]
        wait = float(_attempt(self.client, [self.key(kind, key) for kind, key in keys.items()], rules))
        if wait > 0:
            raise TooManyAttempts(wait)

    def forgive(self, **keys: str) -> None:
        """Forget the attempts under `keys`: whoever has come in was right in the end."""
        self.client.delete(*(self.key(kind, key) for kind, key in keys.items()))

    def give_back(self, **keys: str) -> None:
        """Take one attempt back that was right, and keep what was wrong before it.

        For keys that many people share, such as an address: their logins don't add up, and somebody who logs
        in between guesses gains nothing.
        """
        _give_back(self.client, [self.key(kind, key) for kind, key in keys.items()], [1])

    def key(self, kind: str, key: str) -> str:
        """The Redis key that counts the attempts of one key."""
        return f"pm:attempts:{self.name}:{kind}:{bounded(key)}"
