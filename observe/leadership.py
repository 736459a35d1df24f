"""Leadership as others see it: which scheduler leads, and how many stand by."""

from __future__ import annotations

from dataclasses import dataclass

from redis import Redis
from redis.exceptions import NoPermissionError

from packmule.coordination.redis.replies import as_text
from packmule.coordination.redis.scripts import Script
from packmule.jobs import keys

_who_leads = Script("observe", "who_leads")


@dataclass(frozen=True, slots=True)
class Leader:
    """The leading scheduler: `term` is its fencing token, `since` and `until` Unix times, `left` seconds."""

    name: str
    term: str
    since: float
    until: float
    left: float


def leader(client: Redis) -> Leader | None:
    """The scheduler that leads now, or None."""
    found = _who_leads(client, [keys.LEADER])
    if found is None:
        return None
    name, term, *times = map(as_text, found)
    try:
        since, until, now = map(float, times)
    except ValueError:
        return None
    return Leader(name, term, since, until, until - now) if until > now else None


def candidates(client: Redis) -> int:
    """How many schedulers run, including the leader: the subscribers of the schedulers' channel.

    Zero if `client` is not permitted to count them.
    """
    try:
        ((_, listening),) = client.pubsub_numsub(keys.SCHEDULER)
    except NoPermissionError:
        return 0
    return int(listening)
