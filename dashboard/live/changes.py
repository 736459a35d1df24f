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
from urllib.parse import quote

from redis import Redis

from packmule.coordination.keys import bounded
from packmule.coordination.redis.replies import as_text, pipelined
from packmule.coordination.streams.stream import FIELD, unpack
from packmule.jobs import keys
from packmule.observe import audit, events

EVERYTHING = frozenset({"*"})
BLOCK = 1.0
"""Seconds that one look waits for something to change."""

MOST_ENTRIES = 20
"""Entries that one look reads; if more are there, everything is taken for changed."""

SURVEY = 2.0
"""Seconds between two looks at what emits no events."""

MINUTE = 60
MOST_QUEUES = 50
LONGEST_NOUN = 50

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


def topic(kind: str, name: str) -> str:
    """The topic of one thing, as one short word whatever its name is.

    >>> topic("job", "a b")
    'job:a%20b'
    """
    return bounded(f"{kind}:{quote(name.encode(errors='replace'))}")


class Changes:
    """What changes on `client`'s server after `begin`; `queues` are those that stock RQ may fill unseen.

    >>> changes = Changes(client, ("default",))  # doctest: +SKIP
    >>> changes.begin()  # doctest: +SKIP
    >>> changes.next()  # doctest: +SKIP
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

    def begin(self) -> None:
        """Take what is there now for known, in one trip. Raises redis-py's errors."""
        self._after.clear()
        self._survey.clear()
        self._surveyed()

    def next(self) -> set[str]:
        """The topics that changed since the last call, or that do in a moment. Raises redis-py's errors."""
        topics = self._surveyed() if time.monotonic() >= self._survey_at else set()
        for name, entries in self._read(block=not topics):
            topics |= self._of(as_text(name), entries)
        if (minute := int(time.time()) // MINUTE) != self._minute:
            self._minute = minute
            topics.add("minute")
        return topics

    def _read(self, *, block: bool) -> Sequence[tuple[bytes, list[tuple[bytes, dict[bytes, bytes]]]]]:
        if not self._after:  # their keys hold something else
            time.sleep(BLOCK if block else 0)
            return ()
        after = cast("dict[Any, Any]", self._after)
        found = self.client.xread(after, MOST_ENTRIES, int(1000 * BLOCK) if block else None)
        return cast("Any", found) or ()

    def _last(self, key: str) -> bytes:
        (found,) = self._replies([("XREVRANGE", key, "+", "-", "COUNT", 1)])
        return _last_id(found)

    def _replies(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The replies, in one trip; None for a key of another type."""
        return pipelined(self.client, commands, None, "WRONGTYPE")

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
        ends = [("XREVRANGE", key, "+", "-", "COUNT", 1) for key in _STREAMS]
        found = self._replies([*ends, *(each for group in groups.values() for each in group)])
        replies = iter(found)
        lost = [self._has_lost(key, next(replies)) for key in _STREAMS]
        survey = {name: [next(replies) for _ in group] for name, group in groups.items()}
        changed = {name for name, found in survey.items() if self._survey.get(name, found) != found}
        is_first, self._survey, self._survey_at = not self._survey, survey, time.monotonic() + SURVEY
        return set(EVERYTHING) if any(lost) and not is_first else changed

    def _has_lost(self, key: str, end: Any) -> bool:
        """Whether entries after the last that was read may be out of reach; the next look goes on at `end`.

        So it is if a failover or somebody has taken entries away, since later ones may have earlier ids, and
        if the key is a stream again.
        """
        if end is None:
            self._after.pop(key, None)
            return False
        last = _last_id(end)
        if key in self._after and _order(last) >= _order(self._after[key]):
            return False
        self._after[key] = last
        return True


def _last_id(found: Sequence[tuple[bytes, Any]] | None) -> bytes:
    return found[0][0] if found else b"0-0"


def _order(id: bytes) -> tuple[int, int]:
    stamp, _, number = id.partition(b"-")
    return int(stamp), int(number)


def _of_event(event: events.JobEvent | None) -> set[str]:
    if event is None:
        return set()
    return {"jobs", topic("job", event.job), topic("queue", event.queue), *_TOPICS.get(event.type, ())}


def _of_action(action: audit.Action | None) -> set[str]:
    if action is None:
        return set()
    noun = action.action.partition(" ")[0][:LONGEST_NOUN]
    return {"audit", f"{noun}es" if noun.endswith("ch") else f"{noun.removesuffix('s')}s"}
