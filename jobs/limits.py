"""Gates: what may keep a waiting job from running, though a worker is free, and which jobs wait in turn."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import msgspec

from packmule.coordination.key_template import InvalidTemplate, KeyTemplate, template
from packmule.coordination.keys import bounded
from packmule.coordination.limits.rate import InvalidRate
from packmule.jobs.rate_by import RateBy, rate_by

Policy = Literal["wait", "skip", "replace"]
POLICIES = ("wait", "skip", "replace")

MOST_SLOTS = 100_000


class InvalidGate(ValueError):
    """A limit that can't be kept, told when the job is decorated."""


class Slots(NamedTuple):
    """At most `most` jobs at once, for each value of `key` on its own where that is given."""

    most: int
    key: KeyTemplate | None


class Shut(NamedTuple):
    """What a job's record says of its gates.

    `group` names those that wait for each other. `gates` is JSON, a list of `["lock", key, 1, policy]`,
    `["slots", key, most]` and `["rate", key, microseconds a job, microseconds a whole burst]`.
    """

    group: str
    gates: str
    lock: str | None


class Gates(NamedTuple):
    """The gates of one job type, as its decorator names them."""

    name: str
    lock: KeyTemplate | Literal[True] | None
    policy: Policy
    slots: Slots | None
    rate: RateBy | None
    fair: KeyTemplate | None

    def of(self, arguments: Mapping[str, Any]) -> Shut:
        """Those of a call with these `arguments` by name. Raises `UnfitValue`."""

        def key(kind: KeyTemplate | Literal[True] | None) -> str:
            return bounded(
                f"{self.name}:{kind.fill(arguments)}" if isinstance(kind, KeyTemplate) else self.name
            )

        gates: list[tuple[str | int, ...]] = []
        if self.lock:
            gates.append(("lock", key(self.lock), 1, self.policy))
        if self.slots:
            gates.append(("slots", key(self.slots.key), self.slots.most))
        if self.rate:
            rate = self.rate.rate
            gates.append(("rate", key(self.rate.key), rate.interval_us, rate.capacity_us))
        named = [f"{kind} {name}" for kind, name, *_ in gates]
        group = bounded(" ".join(([f"fair {key(self.fair)}"] if self.fair else []) + named))
        return Shut(
            group, msgspec.json.encode(gates).decode() if gates else "", key(self.lock) if self.lock else None
        )


def gates(
    name: str,
    signature: inspect.Signature,
    singleton: bool | str | None,
    policy: str,
    concurrency: int | str | None,
    rate: str | None,
    fair: str | None,
) -> Gates | None:
    """The gates of the job type `name`, None where it has none. Raises `InvalidGate`."""
    try:
        lock: KeyTemplate | Literal[True] | None
        lock = template(singleton, signature) if isinstance(singleton, str) else (True if singleton else None)
        slots = _slots(concurrency, signature) if concurrency is not None else None
        by = rate_by(rate, signature) if rate is not None else None
        turns = template(fair, signature) if fair is not None else None
    except (InvalidRate, InvalidTemplate) as error:
        raise InvalidGate(str(error)) from None
    if policy not in POLICIES:
        raise InvalidGate(f"singleton_policy={policy!r}: give {', '.join(POLICIES[:-1])} or {POLICIES[-1]}")
    if policy != "wait" and lock is None:
        raise InvalidGate("singleton_policy says what becomes of a second singleton: add singleton=True")
    if turns is not None and not turns.fields:
        raise InvalidGate(f"fair={fair!r}: name an argument in braces, whose values take turns")
    if lock is None and slots is None and by is None and turns is None:
        return None
    return Gates(name, lock, policy, slots, by, turns)  # type: ignore[arg-type]  # checked above


def _slots(text: int | str, signature: inspect.Signature) -> Slots:
    """`5`, or `5 by {tenant}`."""
    number, by, key = str(text).partition(" by ")
    if isinstance(text, bool) or not number.strip().isdecimal() or not 1 <= int(number) <= MOST_SLOTS:
        raise InvalidGate(
            f"concurrency={text!r}: give a number from 1 to {MOST_SLOTS}, "
            "or one for each value of an argument, such as '5 by {tenant}'"
        )
    return Slots(int(number), template(key, signature) if by else None)
