"""Deliveries: jobs of several requests that reach the server in one call, each with an outcome of its own."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from redis import Redis

from packmule.jobs.delivery import deliver
from packmule.jobs.entry import Entry


class Delivery(NamedTuple):
    """The jobs of one request, as `jobs.delivery.deliver` takes them."""

    entries: list[Entry]
    is_durable: bool = False
    after: tuple[str, ...] = ()

    @property
    def batch(self) -> str:
        """The batch in which they count: one call of the script has jobs of one batch."""
        return self.entries[0].run.batch or ""

    @property
    def is_plain(self) -> bool:
        """Whether it may share a call."""
        return not (self.is_durable or self.after)


def deliver_each(client: Redis, deliveries: Sequence[Delivery]) -> list[dict[str, str] | Exception]:
    """What `deliver` returns for each of `deliveries`, or raises.

    If one spoils a call, each is delivered again alone: a job whose id is known is there once.
    """
    outcomes: list[dict[str, str] | Exception | None] = [None] * len(deliveries)
    plain = [number for number, each in enumerate(deliveries) if each.is_plain]
    plain.sort(key=lambda number: deliveries[number].batch)  # which keeps the order of those of a batch
    for _, numbers in groupby(plain, lambda number: deliveries[number].batch):
        together = list(numbers)
        if len(together) == 1:
            continue
        entries = [entry for number in together for entry in deliveries[number].entries]
        try:
            holders = deliver(client, entries)
        except Exception:  # noqa: S112  each is tried alone
            continue
        for number in together:
            ids = {entry.id for entry in deliveries[number].entries}
            outcomes[number] = {id: holder for id, holder in holders.items() if id in ids} if holders else {}
    return [
        _alone(client, each) if outcome is None else outcome
        for each, outcome in zip(deliveries, outcomes, strict=True)
    ]


def _alone(client: Redis, delivery: Delivery) -> dict[str, str] | Exception:
    try:
        return deliver(client, delivery.entries, delivery.is_durable, delivery.after)
    except Exception as error:
        return error
