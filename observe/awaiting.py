"""Jobs that await a signal, such as an approval: which one, since when and until when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from redis import Redis

from packmule.coordination.redis.replies import as_text, pipelined
from packmule.jobs import keys, queues, reader
from packmule.jobs.reader import JobInfo
from packmule.observe.timeline import instant

MOST_LOOKS = 5_000
"""Jobs that wait or are scheduled of which one call reads the first fields."""

MOST_QUEUES = 500


@dataclass(frozen=True, slots=True)
class Awaiting:
    """A job that awaits a signal: which, since when and until when, in Unix seconds, None if unknown."""

    job: JobInfo
    signal: str
    since: float | None
    until: float | None


def awaiting(client: Redis, more: Sequence[str] = (), most: int = 100) -> tuple[list[Awaiting], bool]:
    """The jobs that await a signal, and whether there may be more. The next to end its wait comes first.

    Jobs that wait for ever come last. It takes five trips.

    >>> awaiting(client)[0][0].signal  # doctest: +SKIP
    'approved'
    """
    names = queues.names(client, more)[:MOST_QUEUES]
    share = max(10, MOST_LOOKS // max(1, 2 * len(names)))
    places = [keys.registry_key(status, name) for status in ("scheduled", "deferred") for name in names]
    replies = pipelined(client, [("ZRANGE", place, 0, share - 1) for place in places], ())
    ids = [as_text(id) for reply in replies for id in reply]
    waits = pipelined(client, [("HGET", keys.job_key(id), "waits") for id in ids], None)
    found = [id for id, field in zip(ids, waits, strict=True) if as_text(field or b"").startswith("signal")]
    infos = [info for info in reader.read_many(client, found[:most]) if info and info.waits]
    since = pipelined(client, [("HGET", keys.job_key(info.id), "waits_since") for info in infos], None)
    shown = [
        Awaiting(info, (info.waits or "").partition(":")[2], instant(as_text(at or b"")), info.waits_until)
        for info, at in zip(infos, since, strict=True)
    ]
    shown.sort(key=lambda each: each.until or float("inf"))
    return shown, len(found) > most or any(len(reply) == share for reply in replies)
