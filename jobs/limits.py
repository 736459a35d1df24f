"""The limits of jobs, which can block them while workers are free: singletons, concurrency, rates, turns."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypeGuard

import msgspec

from packmule.coordination.key_template import InvalidKeyTemplate, KeyTemplate, UnfitValue, template
from packmule.coordination.keys import bounded
from packmule.coordination.limits.rate import InvalidRate, Rate
from packmule.errors import UsageError

Policy = Literal["wait", "skip", "replace"]
POLICIES = ("wait", "skip", "replace")

MOST_SLOTS = 100_000
MOST_WEIGHTED_SLOTS = 10**12
"""Slots of a limit of which a job may take several, such as the pixels of an image."""

LONGEST_SHOWN = 40

_BY = re.compile(r"(?P<value>.*?)\s+by\s+(?P<key>.*)", re.DOTALL)
"""A limit for each value of a key: `100/m by {domain}`."""

_PER_HOST = re.compile(r"(?P<value>.*?)\s+per\s+host\s*", re.DOTALL)
"""A limit of each machine on its own: `400 per host cost {megapixels}`."""

_COST = re.compile(r"(?P<rest>.*?)\s+cost\s+\{(?P<argument>\w+)\}\s*", re.DOTALL)
"""A limit of which a call takes what an argument says: `100000/m by {model} cost {tokens}`."""


class InvalidLimit(UsageError, ValueError):
    """A limit in a job's decorator can't be kept."""


class UnfitCost(UnfitValue):
    """An argument of a call is no cost, or more than its limit ever allows."""


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a number, which may be no finite one."""
    return isinstance(value, int | float) and not isinstance(value, bool)


class Cost(NamedTuple):
    """What a call takes of a limit: the number in one of its arguments, which may have a default."""

    argument: str
    default: Any

    def of(self, arguments: Mapping[str, Any], most: int, limit: str) -> int:
        """The cost of a call with these `arguments`, a whole number up to `most`, rounded up.

        `limit` names the limit in errors. Raises `UnfitCost`.
        """
        value = arguments.get(self.argument, self.default)
        if not is_number(value) or not value > 0:
            shown = repr(value)[:LONGEST_SHOWN]
            raise UnfitCost(f"the argument {self.argument} is a cost: give a number above 0, not {shown}")
        if value > most:
            raise UnfitCost(
                f"the argument {self.argument} costs {f'{value:,}'[:LONGEST_SHOWN]}, but {limit} allows at "
                f"most {most:,}: the job could never run"
            )
        return math.ceil(value)


class Slots(NamedTuple):
    """At most `most` jobs at once: for each value of `key`, or in all if `key` is None.

    With a `cost` that is the sum of what the jobs cost. If it is `per_host`, each machine has so many.
    """

    most: int
    key: KeyTemplate | None
    cost: Cost | None = None
    per_host: bool = False


class RateBy(NamedTuple):
    """A rate, for each value of `key` on its own, or for all jobs of the type together if `key` is None.

    With a `cost` that is the rate of what the jobs cost.
    """

    rate: Rate
    key: KeyTemplate | None
    cost: Cost | None = None


class CallLimits(NamedTuple):
    """The limits of one call, as the job's record has them.

    `group` is the name of the group of jobs that wait for each other. `limits` is JSON, a list of
    `["lock", key, 1, policy]`, `["slots", key, most]` and `["rate", key, microseconds per job, microseconds
    per whole burst]`, with the call's cost behind the latter two if their limit has one. Slots of each host
    have a cost, and `"host"` behind it. `lock` is the key of the singleton's lock.
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
        """The limits of a call with these `arguments`, by name. Raises `UnfitValue` and `UnfitCost`."""

        def key(kind: KeyTemplate | Literal[True] | None) -> str:
            return bounded(
                f"{self.name}:{kind.fill(arguments)}" if isinstance(kind, KeyTemplate) else self.name
            )

        limits: list[tuple[str | int, ...]] = []
        if self.lock:
            limits.append(("lock", key(self.lock), 1, self.policy))
        if self.slots:
            most, by, cost, per_host = self.slots
            own = (cost.of(arguments, most, "concurrency"),) if cost else (1,) if per_host else ()
            limits.append(("slots", key(by), most, *own, *(("host",) if per_host else ())))
        if self.rate:
            rate, _, cost = self.rate
            own = (cost.of(arguments, rate.burst, "rate"),) if cost else ()
            limits.append(("rate", key(self.rate.key), rate.interval_us, rate.capacity_us, *own))
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
    """`5`, `5 by {tenant}`, `5 per host`, or one of these with a cost, such as `200 cost {megapixels}`."""
    rest, cost = _cost(str(text), signature)
    found = _PER_HOST.fullmatch(rest)
    number, by, key = (found["value"] if found else rest).partition(" by ")
    if by and (re.search(r"\bper\s+host\b", rest) or key.strip() == "host"):
        raise InvalidLimit(
            f"concurrency={text!r}: end with 'per host' for a limit per machine, or with 'by {{host}}' for "
            "a limit per value of an argument, not with both"
        )
    most = MOST_WEIGHTED_SLOTS if cost else MOST_SLOTS
    if isinstance(text, bool) or not number.strip().isdecimal() or not 1 <= int(number) <= most:
        raise InvalidLimit(
            f"concurrency={text!r}: give a number from 1 to {most}, "
            "or a number for each value of an argument, such as '5 by {tenant}', "
            "or a number for each machine, such as '5 per host'"
        )
    return Slots(int(number), _named(key, signature) if by else None, cost, found is not None)


def _cost(text: str, signature: inspect.Signature) -> tuple[str, Cost | None]:
    """A limit's text without its cost, and that. Raises `InvalidLimit`."""
    found = _COST.fullmatch(text)
    if re.search(r"\scost\b", found["rest"] if found else text):
        raise InvalidLimit(f"{text!r}: end with cost and one argument in braces, such as cost {{tokens}}")
    if found is None:
        return text, None
    name = found["argument"]
    parameter = signature.parameters.get(name)
    if parameter is None or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        known = ", ".join(signature.parameters) or "none"
        raise InvalidLimit(f"{text!r}: the function has no argument {name}; it has {known}")
    return found["rest"], Cost(name, parameter.default)


def _named(text: str, signature: inspect.Signature) -> KeyTemplate:
    """The key template in `text`. Raises `InvalidKeyTemplate` if it names no argument in braces."""
    found = template(text, signature)
    if not found.fields:
        raise InvalidKeyTemplate(f"{text!r} is the same key for all calls: put an argument in braces")
    return found


def rate_by(text: str, signature: inspect.Signature) -> RateBy:
    """The rate in `text`, and the arguments of a function with this `signature` that it is kept and paid by.

    >>> def fetch(url: str, domain: str) -> None: ...
    >>> rate_by("100/m burst 20 by {domain}", inspect.signature(fetch)).rate
    Rate(limit=100, period=60.0, burst=20)

    Raises `InvalidRate`, `InvalidKeyTemplate` for a key that names no argument, or `InvalidLimit`.
    """
    text, cost = _cost(text.strip(), signature) if isinstance(text, str) else (text, None)
    parts = _BY.fullmatch(text) if isinstance(text, str) else None
    if parts is None:
        return RateBy(Rate.parse(text), None, cost)
    rate = Rate.parse(parts["value"])
    key = template(parts["key"], signature)
    if not key.fields:
        raise InvalidKeyTemplate(f"{text!r}: put the argument in braces, as in {rate} by {{name}}")
    return RateBy(rate, key, cost)
