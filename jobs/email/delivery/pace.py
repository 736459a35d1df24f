"""The pace of mails: how many a domain gets over all workers, as the settings say and as it has shown."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from redis import Redis

from packmule.coordination.keys import KeyTaken, bounded
from packmule.coordination.limits.rate import InvalidRate, Rate
from packmule.coordination.limits.rate_limit import TokenBucket
from packmule.coordination.redis.backoff import REDIS_ERRORS
from packmule.coordination.redis.replies import as_text
from packmule.coordination.redis.scripts import Script
from packmule.errors import UsageError
from packmule.jobs.email.letter import Letter
from packmule.jobs.email.message.addresses import domain_of
from packmule.jobs.email.outcome import Journal, Outcome, State

SLOW = "pm:mail-slow"
"""The sorted set of domains that were slowed, by when they are forgotten."""

LOOK_AGAIN = 1.0
"""Seconds after which a process looks again which domains are slow."""

MOST_SLOW = 10_000
ANY = "*"
MICROSECONDS = 1_000_000

NO_LIMIT = (*REDIS_ERRORS, KeyTaken)
"""What keeps a limit from being known: mails then go. If Redis is away, the journal waits for it."""

_NAME = re.compile(r"\*|[a-z0-9_](?:[a-z0-9._-]{0,252}[a-z0-9_])?")
_THE_MAILBOX_ALONE = re.compile(r"4\d\d 4\.[12]\.")
"""Refusals for now that say nothing of the domain: of an address, or of a mailbox that is full."""

_take = Script("jobs.email.delivery", "take_turn")
_learn = Script("jobs.email.delivery", "learn_pace")


class InvalidMailPace(UsageError, ValueError):
    """The setting of the pace of mails is invalid."""


def parse(text: str) -> dict[str, Rate]:
    """The rates by domain in a text such as `gmail.com=20/s, *=100/s`; `*` is each other domain by itself.

    >>> parse("gmail.com=20/s")["gmail.com"]
    Rate(limit=20, period=1.0, burst=20)

    Raises `InvalidMailPace`.
    """
    rates: dict[str, Rate] = {}
    for entry in filter(None, map(str.strip, text.split(","))):
        name, _, rate = entry.partition("=")
        if not _NAME.fullmatch(name.strip().lower()):
            raise InvalidMailPace(
                f"PACKMULE_MAIL_PACE: {entry[:80]!r}: write a domain or *, = and a rate, as in gmail.com=20/s"
            )
        try:
            rates[name.strip().lower()] = Rate.parse(rate)
        except InvalidRate as error:
            raise InvalidMailPace(f"PACKMULE_MAIL_PACE: {name.strip()[:80]}: {error}") from None
    return rates


class Pace:
    """Lets mails go, or wait, by their recipients' domains; all processes share it through `redis`.

    A domain that refuses mails for now gets fewer, at first one a second and at least one in ten minutes, and
    each that it takes then speeds it up again. Domains that are neither limited nor slow cost nothing. While
    Redis is away nothing waits: the journal waits for Redis itself.
    """

    def __init__(self, redis: Redis, rates: Mapping[str, Rate]) -> None:
        self._redis = redis
        self._buckets = {name: TokenBucket(redis, "mail", rate) for name, rate in rates.items()}
        self._slow: frozenset[str] = frozenset()
        self._looked_at = float("-inf")
        self._line: dict[str, float] = {}

    @property
    def is_free(self) -> bool:
        """Whether no domain is limited or slow."""
        try:
            return not self._buckets and not self._slow_ones()
        except NO_LIMIT:
            return True

    def wait(self, name: str, count: int) -> float:
        """How many seconds `count` mails to a domain must wait, 0.0 if they may go."""
        try:
            if name in self._slow_ones():
                wait = float(_take(self._redis, [pace_key(name)], [count])) / MICROSECONDS
                if wait:
                    return wait
            bucket = self._buckets.get(name) or self._buckets.get(ANY)
            return self._taken(bucket, name, count) if bucket is not None else 0.0
        except NO_LIMIT:
            return 0.0

    def learn(self, name: str, verdict: str) -> None:
        """Let the domain be slower (`slow`) or faster (`ease`) from now on."""
        if verdict == "ease" and name not in self._slow:
            return
        try:
            is_slow = _learn(self._redis, [SLOW, pace_key(name)], [name, verdict])
        except NO_LIMIT:
            return
        self._slow = self._slow | {name} if is_slow else self._slow - {name}

    def _taken(self, bucket: TokenBucket, name: str, count: int) -> float:
        answer = bucket.hit(name, min(count, bucket.most))
        if answer.allowed:
            self._line.pop(name, None)
            return 0.0
        # Those that wait come back one after another instead of all at once.
        now = time.monotonic()
        at = max(now + answer.retry_after, self._line.get(name, 0.0))
        if len(self._line) > MOST_SLOW:
            self._line.clear()
        self._line[name] = at + count * bucket.rate.period / bucket.rate.limit
        return at - now

    def _slow_ones(self) -> frozenset[str]:
        now = time.monotonic()
        if now - self._looked_at > LOOK_AGAIN:
            self._looked_at = now
            found: Any = self._redis.zrangebyscore(SLOW, time.time(), "+inf", 0, MOST_SLOW)
            self._slow = frozenset(map(as_text, found))
        return self._slow


def pace_key(name: str) -> str:
    """The key of a domain's pace, once it is slow."""
    return f"pm:mail-pace:{bounded(name)}"


class Paced:
    """A journal that learns the pace of domains from what it records in `journal`."""

    def __init__(self, journal: Journal, pace: Pace) -> None:
        self._journal = journal
        self._pace = pace
        self.prepare, self.begin, self.still = journal.prepare, journal.begin, journal.still
        self.flush = journal.flush

    def ended(self, letter: Letter, outcomes: Mapping[str, Outcome]) -> None:
        """Pass the outcomes on, and learn from them."""
        self._journal.ended(letter, outcomes)
        if self._pace.is_free and all(each.state is State.ACCEPTED for each in outcomes.values()):
            return
        refused, eased = set(), set()
        for to, outcome in outcomes.items():
            if outcome.state is State.ACCEPTED:
                eased.add(domain_of(to))
            elif outcome.state is State.DEFERRED and _is_of_domain(outcome):
                refused.add(domain_of(to))
        for name in refused:
            self._pace.learn(name, "slow")
        for name in eased - refused:
            self._pace.learn(name, "ease")

    def may_go(self, letters: Iterator[Letter]) -> Iterator[Letter]:
        """The letters, without the recipients that must wait: they are deferred.

        One whose answer was lost goes whole, since its server knows it only then.
        """
        for letter in letters:
            if letter.request or self._pace.is_free:
                yield letter
                continue
            counts = Counter(map(domain_of, letter.recipients))
            waits = {name: wait for name, count in counts.items() if (wait := self._pace.wait(name, count))}
            if not waits:
                yield letter
                continue
            self._journal.ended(letter, _deferred(letter.recipients, waits))
            left = tuple(to for to in letter.recipients if domain_of(to) not in waits)
            if left:
                yield replace(letter, recipients=left)


def _deferred(recipients: Sequence[str], waits: Mapping[str, float]) -> dict[str, Outcome]:
    now = time.time()
    return {
        to: Outcome(State.DEFERRED, f"{name} gets mails at its pace", retry_at=now + waits[name])
        for to in recipients
        if (name := domain_of(to)) in waits
    }


def _is_of_domain(outcome: Outcome) -> bool:
    return outcome.reply[:1] == "4" and not _THE_MAILBOX_ALONE.match(outcome.reply)
