"""The limits of jobs, which can block them while workers are free: singletons, concurrency, rates, turns."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import msgspec

from packmule.coordination.key_template import InvalidKeyTemplate, KeyTemplate, template
from packmule.coordination.keys import bounded
from packmule.coordination.limits.rate import InvalidRate, Rate
from packmule.errors import UsageError

Policy = Literal["wait", "skip", "replace"]
POLICIES = ("wait", "skip", "replace")

MOST_SLOTS = 100_000

_BY = re.compile(r"(?P<value>.*?)\s+by\s+(?P<key>.*)", re.DOTALL)
"""A limit for each value of a key: `100/m by {domain}`."""


class InvalidLimit(UsageError, ValueError):
    """A limit in a job's decorator can't be kept."""


class Slots(NamedTuple):
    """At most `most` jobs at once: for each value of `key`, or in all if `key` is None."""

    most: int
    key: KeyTemplate | None


class RateBy(NamedTuple):
    """A rate, for each value of `key` on its own, or for all jobs of the type together if `key` is None."""

    rate: Rate
    key: KeyTemplate | None


class CallLimits(NamedTuple):
    """The limits of one call, as the job's record has them.

    `group` is the name of the group of jobs that wait for each other. `limits` is JSON, a list of
    `["lock", key, 1, policy]`, `["slots", key, most]` and `["rate", key, microseconds per job, microseconds
    per whole burst]`. `lock` is the key of the singleton's lock.
    """

    group: str
    limits: str
    lock: str | None


class JobLimits(NamedTuple):
    """The limits of one job type, as its decorator gives them."""

    name: str
    lock: KeyTemplate | Literal[True] | None
    policy: Policy
    slots: Slots | None
    rate: RateBy | None
    fair: KeyTemplate | None

    def of(self, arguments: Mapping[str, Any]) -> CallLimits:
        """The limits of a call with these `arguments`, by name. Raises `UnfitValue`."""

        def key(kind: KeyTemplate | Literal[True] | None) -> str:
            return bounded(
                f"{self.name}:{kind.fill(arguments)}" if isinstance(kind, KeyTemplate) else self.name
            )

        limits: list[tuple[str | int, ...]] = []
        if self.lock:
            limits.append(("lock", key(self.lock), 1, self.policy))
        if self.slots:
            limits.append(("slots", key(self.slots.key), self.slots.most))
        if self.rate:
            rate = self.rate.rate
            limits.append(("rate", key(self.rate.key), rate.interval_us, rate.capacity_us))
        named = [f"{kind} {name}" for kind, name, *_ in limits]
        group = bounded(" ".join(([f"fair {key(self.fair)}"] if self.fair else []) + named))
        text = msgspec.json.encode(limits).decode() if limits else ""
        return CallLimits(group, text, key(self.lock) if self.lock else None)


def job_limits(
    name: str,
    signature: inspect.Signature,
    singleton: bool | str | None,
    policy: str,
    concurrency: int | str | None,
    rate: str | None,
    fair: str | None,
) -> JobLimits | None:
    """The limits of the job type `name`, None if it has none. Raises `InvalidLimit`."""
    try:
        lock: KeyTemplate | Literal[True] | None
        lock = _named(singleton, signature) if isinstance(singleton, str) else (True if singleton else None)
        slots = _slots(concurrency, signature) if concurrency is not None else None
        by = rate_by(rate, signature) if rate is not None else None
        turns = template(fair, signature) if fair is not None else None
    except (InvalidRate, InvalidKeyTemplate) as error:
        raise InvalidLimit(str(error)) from None
    if policy not in POLICIES:
        raise InvalidLimit(f"singleton_policy={policy!r}: give {', '.join(POLICIES[:-1])} or {POLICIES[-1]}")
    if policy != "wait" and lock is None:
        raise InvalidLimit("singleton_policy is for a job with a singleton: add singleton=True")
    if turns is not None and not turns.fields:
        raise InvalidLimit(f"fair={fair!r}: name an argument in braces; its values take turns")
    if lock is None and slots is None and by is None and turns is None:
        return None
    return JobLimits(name, lock, policy, slots, by, turns)  # type: ignore[arg-type]  # checked above


def _slots(text: int | str, signature: inspect.Signature) -> Slots:
    """`5`, or `5 by {tenant}`."""
    number, by, key = str(text).partition(" by ")
    if isinstance(text, bool) or not number.strip().isdecimal() or not 1 <= int(number) <= MOST_SLOTS:
        raise InvalidLimit(
            f"concurrency={text!r}: give a number from 1 to {MOST_SLOTS}, "
            "or a number for each value of an argument, such as '5 by {tenant}'"
        )
    return Slots(int(number), _named(key, signature) if by else None)


def _named(text: str, signature: inspect.Signature) -> KeyTemplate:
    """The key template in `text`. Raises `InvalidKeyTemplate` if it names no argument in braces."""
    found = template(text, signature)
    if not found.fields:
        raise InvalidKeyTemplate(f"{text!r} is the same key for all calls: put an argument in braces")
    return found


def rate_by(text: str, signature: inspect.Signature) -> RateBy:
    """The rate in `text`, and the arguments of a function with this `signature` that it is kept by.

    >>> def fetch(url: str, domain: str) -> None: ...
    >>> rate_by("100/m burst 20 by {domain}", inspect.signature(fetch)).rate
    Rate(limit=100, period=60.0, burst=20)

    Raises `InvalidRate`, or `InvalidKeyTemplate` for a key that names no argument.
    """
    parts = _BY.fullmatch(text.strip()) if isinstance(text, str) else None
    if parts is None:
        return RateBy(Rate.parse(text), None)
    rate = Rate.parse(parts["value"])
    key = template(parts["key"], signature)
    if not key.fields:
        raise InvalidKeyTemplate(f"{text!r}: put the argument in braces, as in {rate} by {{name}}")
    return RateBy(rate, key)
