"""Changes: what became different on the server, as topics that regions of pages depend on.

A region names topics in `data-on`: `jobs` (any job changed), `job:<id>`, `queue:<name>`, `errors`,
`quarantine`, `approvals`, `workers` (they came, went or became quiet), `queues` (paused, limited), `server`
(full, suspended, another leader), `audit`, the plural of what somebody acted on (`schedules`, `webhooks`,
`limits`), and `minute`, for figures of periods. `*` means everything.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, cast

from redis import Redis

from packmule.coordination.redis.replies import as_text, pipelined
from packmule.coordination.streams.stream import FIELD, unpack
from packmule.jobs import keys
from packmule.observe import audit, events

EVERYTHING = frozenset({"*"})
BLOCK = 1.0
"""Seconds that one look waits for something to change."""

MOST_ENTRIES = 20
"""Entries that one look reads; if more are there, everything is taken for changed."""

GAP = 2.0
"""Seconds between a page's reads and the first look, at most: what happened then is told."""

SURVEY = 2.0
"""Seconds between two looks at what emits no events."""

MINUTE = 60
MOST_QUEUES = 50

_TOPICS = {
    "failed": ("errors",),
    "stopped": ("errors",),
    "error_new": ("errors",),
    "error_again": ("errors",),
    "quarantined": ("quarantine",),
    "waiting": ("approvals",),
    "signaled": ("approvals",),
}
_STREAMS = (keys.JOB_EVENTS, keys.AUDIT)
_GROUPS: dict[str, tuple[tuple[str, ...], ...]] = {
    "workers": (("SCARD", keys.WORKERS), ("ZCARD", keys.LEASES), ("SCARD", keys.QUIET)),
    "queues": (("SCARD", keys.QUEUES), ("SCARD", keys.PAUSED), ("HLEN", keys.QUEUE_RATES)),
    "server": (("EXISTS", keys.FULL), ("EXISTS", keys.SUSPENDED), ("HGET", keys.LEADER, "term")),
    "quarantine": (("LLEN", keys.QUARANTINE),),
}
"""What emits no events, and may have been changed by stock RQ or by a process that died."""


class Changes:
    """What changes on `client`'s server from now on; `queues` are those that stock RQ may fill unseen.

    >>> Changes(client, ("default",)).next()  # doctest: +SKIP
    {'jobs', 'job:2a9f', 'queue:default'}
    """

    def __init__(self, client: Redis, queues: Sequence[str] = ()) -> None:
        self.client = client
        self._after: dict[str, bytes] = {}
        self._lengths = tuple(
            ("LLEN", key) for queue in queues[:MOST_QUEUES] for key in keys.queue_keys(queue)
        )
        self._survey: dict[str, Any] = {}
        self._survey_at = 0.0
        self._minute = int(time.time()) // MINUTE

    def next(self) -> set[str]:
        """The topics that changed since the last call, or that do in a moment. Raises redis-py's errors."""
        topics = self._surveyed() if time.monotonic() >= self._survey_at else set()
        for key in _STREAMS:
            if key not in self._after:
                self._after[key] = _before(self._last(key))
        found = cast(
            "list[tuple[bytes, list[tuple[bytes, dict[bytes, bytes]]]]]",
            self.client.xread(
                {key: self._after[key] for key in _STREAMS},
                count=MOST_ENTRIES,
                block=None if topics else int(1000 * BLOCK),
            ),
        )
        for name, entries in found or ():
            topics |= self._of(as_text(name), entries)
        if (minute := int(time.time()) // MINUTE) != self._minute:
            self._minute = minute
            topics.add("minute")
        return topics

    def forget(self) -> None:
        """Begin again after an outage, in which anything may have changed."""
        self._after.clear()
        self._survey.clear()

    def _last(self, key: str) -> bytes:
        (found,) = pipelined(self.client, [("XREVRANGE", key, "+", "-", "COUNT", 1)], ())
        return found[0][0] if found else b"0-0"

    def _of(self, key: str, entries: Sequence[tuple[bytes, dict[bytes, bytes]]]) -> set[str]:
        if len(entries) >= MOST_ENTRIES:
            self._after[key] = self._last(key)
            return set(EVERYTHING)
        topics: set[str] = set()
        for id, fields in entries:
            self._after[key] = id
            for event in unpack(as_text(id), fields.get(FIELD.encode(), b""))[0]:
                if key == keys.AUDIT:
                    topics |= _of_action(audit.parse(event))
                else:
                    topics |= _of_event(events.parse(event))
        return topics

    def _surveyed(self) -> set[str]:
        groups = {**_GROUPS, "jobs": self._lengths}
        replies = iter(pipelined(self.client, [each for group in groups.values() for each in group], None))
        survey = {name: [next(replies) for _ in group] for name, group in groups.items()}
        changed = {name for name, found in survey.items() if self._survey.get(name, found) != found}
        self._survey, self._survey_at = survey, time.monotonic() + SURVEY
        return changed


def _of_event(event: events.JobEvent | None) -> set[str]:
    if event is None:
        return set()
    return {"jobs", f"job:{event.job}", f"queue:{event.queue}", *_TOPICS.get(event.type, ())}


def _of_action(action: audit.Action | None) -> set[str]:
    if action is None:
        return set()
    noun = action.action.partition(" ")[0]
    return {"audit", f"{noun}es" if noun.endswith("ch") else f"{noun.removesuffix('s')}s"}


def _before(last: bytes) -> bytes:
    """An id of a stream from which entries that came during the `GAP` until now are read, too."""
    stamp = last.partition(b"-")[0]
    since = int(1000 * (time.time() - GAP))
    return min(last, b"%d-0" % since, key=lambda id: int(id.partition(b"-")[0])) if stamp.isdigit() else last
