"""The list of suppressed addresses and domains, which the ledger looks at in the moment of sending."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
from redis import Redis
from redis.exceptions import RedisError

from packmule.coordination.keys import bounded
from packmule.coordination.redis.replies import UNREADABLE, as_text
from packmule.coordination.redis.scripts import Script
from packmule.errors import NotFound, UsageError
from packmule.jobs import wire
from packmule.jobs.email.suppression.addresses import DOMAIN, name_of, shown, suppressed_as
from packmule.plain_text import one_line
from packmule.units import CENTURY, DAY

KEY = "pm:mail-suppressed"
"""The hash of addresses, and of `@` with a domain, that get no mail."""

SOFT_BOUNCES = 5
"""Soft bounces that suppress an address, if no 30 days are between two of them."""

SOFT_SECONDS = 30 * DAY
"""Seconds for which reports and soft bounces are remembered, and for which five soft ones suppress."""

TAKEN = "pm:mail-report:"
"""Keys of reports that were taken: one that comes again does nothing."""

LONGEST_REASON = 200
SOURCES = ("operator", "import", "refused", "bounce", "complaint", "unsubscribe")
A_TRIP = 500

_suppress = Script("jobs.email.suppression", "suppress")
_decode = msgspec.msgpack.Decoder().decode


class NotSuppressed(NotFound):
    """An address or domain is not on the list of suppressed ones."""


class InvalidSuppression(UsageError, ValueError):
    """A suppression has a source that there is not, or a span that can't be meant."""


class Suppressed(NamedTuple):
    """An address or domain that gets no mail, why, and until when in Unix seconds; None is for ever."""

    name: str
    reason: str
    source: str
    since: float
    until: float | None

    @property
    def is_over(self) -> bool:
        """Whether its time has come."""
        return self.until is not None and self.until <= time.time()


class Reported(NamedTuple):
    """What a report, which `name` names, says of an address.

    If it `is_soft`, the address may take mail later, such as a full mailbox.
    """

    address: str
    reason: str
    source: str
    name: str
    is_soft: bool


class Suppressions:
    """The list on the server of `client`.

    >>> Suppressions(client).add("ada@example.org", "asked by phone")  # doctest: +SKIP
    True
    """

    def __init__(self, client: Redis) -> None:
        self.client = client

    def add(self, who: str, reason: str, source: str = "operator", seconds: float | None = None) -> bool:
        """Send no mail to an address or a domain, for some seconds or for ever.

        False if it is on the list already, and for as long. Raises `InvalidAddress` and `InvalidSuppression`.
        """
        return self.add_all([(name_of(who), reason)], source, seconds) == 1

    def add_all(self, named: Sequence[tuple[str, str]], source: str, seconds: float | None = None) -> int:
        """Add names (`addresses.name_of`) with their reasons; how many were not on the list for as long."""
        if source not in SOURCES:
            raise InvalidSuppression(f"source={source!r:.50}: use one of {', '.join(SOURCES)}")
        if seconds is not None and not 0 < seconds <= CENTURY:
            raise InvalidSuppression(
                "give a span above 0 and at most a hundred years, or none to suppress forever"
            )
        added = 0
        for first in range(0, len(named), A_TRIP):
            args = [
                each for name, reason in named[first : first + A_TRIP] for each in (name, _reason(reason))
            ]
            call = [wire.time_text(time.time()), source, seconds or 0, 0, 0, *args]
            added += int(_suppress(self.client, [KEY], call))
        return added

    def reported(self, reports: Sequence[Reported]) -> list[str]:
        """Suppress addresses of which reports say something, in one round trip; those that were added.

        However often a report comes, it counts once. Five soft ones suppress their address for 30 days.
        """
        calls = []
        for address, reason, source, report, is_soft in reports:
            name = suppressed_as(address)
            keys, seconds = [KEY, f"{TAKEN}{bounded(report)}"], 0
            if is_soft:
                keys, seconds = [*keys, f"pm:mail-soft:{bounded(name)}"], SOFT_SECONDS
            call = [wire.time_text(time.time()), source, seconds, SOFT_BOUNCES, SOFT_SECONDS]
            calls.append((keys, [*call, name, _reason(reason)]))
        added = []
        for each, answer in zip(reports, _suppress.each(self.client, calls) if calls else (), strict=True):
            if isinstance(answer, RedisError):
                raise answer
            if answer:
                added.append(each.address)
        return added

    def remove(self, who: str) -> None:
        """Let an address or a domain get mail again. Raises `InvalidAddress` and `NotSuppressed`."""
        name = name_of(who)
        if not self.client.hdel(KEY, name):
            domain = DOMAIN + name.partition(DOMAIN)[2]
            also = (
                f"; its domain is: packmule suppression remove {shown(domain)}" if self._get(domain) else ""
            )
            raise NotSuppressed(f"{shown(name)} is not suppressed{also}")

    def find(self, who: str) -> Suppressed | None:
        """Why an address or domain gets no mail, be it for its own sake or its domain's; None if it does."""
        name = name_of(who)
        return self._get(name) or self._get(DOMAIN + name.partition(DOMAIN)[2])

    def among(self, addresses: Sequence[str]) -> list[str]:
        """Those of a few hundred bare addresses that get no mail, for their own sake or their domain's."""
        if not addresses:
            return []
        wanted = [(suppressed_as(each), DOMAIN + each.rpartition(DOMAIN)[2].lower()) for each in addresses]
        names = [name for both in wanted for name in both]
        values: Any = self.client.hmget(KEY, names)
        held = [
            value is not None and not _read(name, value).is_over
            for name, value in zip(names, values, strict=True)
        ]
        return [each for each, *both in zip(addresses, held[::2], held[1::2], strict=True) if any(both)]

    def count(self) -> int:
        """How many are on the list, with those whose time has come and nobody has written to."""
        return int(self.client.hlen(KEY))

    def __iter__(self) -> Iterator[Suppressed]:
        """All on the list, in no order, a few hundred a round trip; each once, if nobody changes it."""
        cursor: Any = 0
        while True:
            cursor, page = self.page(cursor)
            yield from page
            if not cursor:
                return

    def page(self, cursor: int = 0) -> tuple[int, list[Suppressed]]:
        """Some hundreds of the list behind a cursor, and the next cursor, which is 0 at the end."""
        scanned: Any = self.client.hscan(KEY, cursor, count=A_TRIP)
        found = [_read(as_text(name), value) for name, value in scanned[1].items()]
        return int(scanned[0]), [each for each in found if not each.is_over]

    def _get(self, name: str) -> Suppressed | None:
        value: Any = self.client.hget(KEY, name)
        found = _read(name, value) if value is not None else None
        return None if found is None or found.is_over else found


def _read(name: str, packed: bytes) -> Suppressed:
    try:
        reason, source, since, until = _decode(packed)
        ends = wire.instant(until)
        return Suppressed(name, str(reason), str(source), wire.instant(since), ends or None)
    except (TypeError, ValueError, *UNREADABLE):
        return Suppressed(name, "its entry is unreadable", "", 0.0, None)


def _reason(text: str) -> str:
    return one_line(text[: 4 * LONGEST_REASON], LONGEST_REASON) or "no reason given"
