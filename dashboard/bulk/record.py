"""The record of a bulk action in Redis: what is to be done, by whom, how far it is, and who performs it."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import msgspec
from redis import Redis
from redis.exceptions import WatchError

from packmule.coordination.redis.replies import UNREADABLE, as_text, as_texts, pipelined
from packmule.errors import Conflict, NotFound
from packmule.jobs import filter_text, wire
from packmule.jobs.job_filter import JobFilter
from packmule.units import DAY

LATEST = "pm:bulks"
"""The sorted set of bulk actions by when they began."""

MOST, TTL = 500, 30 * DAY
"""Bulk actions that are listed, and seconds for which each is kept."""

LEASE = 15.0
"""Seconds for which a process may perform a bulk action without renewing that."""

MOST_REASONS = 20

STATES = ("running", "stopping", "stopped", "done", "failed")


class NoSuchBulk(NotFound, LookupError):
    """No bulk action has that id: none ever had, or it was too long ago."""


class NotNow(Conflict):
    """The state of a bulk action does not allow that: it runs, or it doesn't any more."""


class Bulk(msgspec.Struct, frozen=True):
    """A bulk action. Times are Unix seconds; `text` is the filter as it was typed, and `at` its now.

    `phase` is `act` or `undo`, and `state` one of `STATES`. `is_performed` says whether a process performs it
    now: one that should run and isn't performed has lost its process. `undone` jobs were put back, of those
    `copied` before they were deleted.
    """

    id: str
    act: str
    text: str
    at: float
    who: str
    where: str
    reason: str
    began: float
    ended: float | None
    phase: str
    state: str
    found: int
    is_partial: bool
    matched: int
    done: int
    refused: Mapping[str, int]
    copied: int
    undone: int
    not_undone: Mapping[str, int]
    fault: str
    is_performed: bool

    @property
    def wanted(self) -> JobFilter:
        """The filter. What ended or came after the beginning doesn't fit it, unless it is to be canceled.

        So a job that was retried and failed again is not retried twice, even if the action has to begin anew.
        """
        found = filter_text.parse(self.text, self.at)
        if self.act == "cancel":
            return found
        until = min(filter(None, (found.times[1], self.began)))
        return replace(found, until=until)

    @property
    def is_over(self) -> bool:
        """Whether nobody works on it, or will."""
        return self.state in ("stopped", "done", "failed") or not self.is_performed


def create(
    client: Redis,
    act: str,
    text: str,
    at: float,
    found: int,
    is_partial: bool,
    *,
    id: str | None = None,
    **by: str,
) -> str:
    """Record a bulk action that is about to begin; its id. `by` are `who`, `where` and `reason`.

    If the `id` is given and there is such a record, that stays as it is.
    """
    id, now = id or secrets.token_hex(8), time.time()
    fields: dict[Any, Any] = {
        "act": act,
        "text": text,
        "at": repr(at),
        "began": repr(now),
        "phase": "act",
        "state": "running",
    }
    fields |= {"found": str(found), "partial": "1" if is_partial else "", **by}
    with client.pipeline(transaction=True) as pipeline, suppress(WatchError):  # another has just made it
        pipeline.watch(_key(id))  # type: ignore[no-untyped-call]
        if not pipeline.exists(_key(id)):
            pipeline.multi()
            pipeline.hset(_key(id), mapping=fields)
            pipeline.expire(_key(id), TTL)
            pipeline.zadd(LATEST, {id: now})
            pipeline.zremrangebyrank(LATEST, 0, -MOST - 1)
            pipeline.execute()
    return id


def read(client: Redis, id: str) -> Bulk:
    """The bulk action `id`. Raises `NoSuchBulk`."""
    (found,) = _read(client, [id])
    if found is None:
        raise NoSuchBulk(f"no bulk action has the id {id}: see the list; bulk actions are kept for 30 days")
    return found


def latest(client: Redis, most: int = 50) -> list[Bulk]:
    """The latest bulk actions, the newest first."""
    (ids,) = pipelined(client, [("ZREVRANGE", LATEST, 0, most - 1)], ())
    return [each for each in _read(client, [*map(as_text, ids)]) if each]


def stop(client: Redis, id: str) -> None:
    """Ask whoever performs it to stop after the jobs at hand. Raises `NoSuchBulk` and `NotNow`."""
    bulk = read(client, id)
    if bulk.is_over:
        raise NotNow(f"bulk action {id} isn't running: it is {bulk.state}")
    client.hset(_key(id), "state", "stopping")


class Owner:
    """The right of one process to perform a bulk action, for some seconds at a time."""

    def __init__(self, client: Redis, id: str) -> None:
        self.client = client
        self.id = id
        self.token = secrets.token_hex(8)

    def take(self) -> bool:
        """Take the right, unless another has it."""
        return bool(self.client.set(f"{_key(self.id)}:owner", self.token, nx=True, px=int(LEASE * 1000)))

    def renew(self) -> bool:
        """Keep the right; False if it is lost, or somebody asked to stop."""
        owner, state = pipelined(
            self.client, [("GET", f"{_key(self.id)}:owner"), ("HGET", _key(self.id), "state")], None
        )
        if as_text(owner or b"") != self.token or state != b"running":
            return False
        return bool(self.client.pexpire(f"{_key(self.id)}:owner", int(LEASE * 1000)))

    def is_another(self) -> bool:
        """Whether another process has taken the right, after this one lost it."""
        return as_text(self.client.get(f"{_key(self.id)}:owner") or b"") not in ("", self.token)

    def release(self) -> None:
        """Give the right up, if it isn't lost."""
        if as_text(self.client.get(f"{_key(self.id)}:owner") or b"") == self.token:
            self.client.delete(f"{_key(self.id)}:owner")


def count(client: Redis, id: str, **counts: int) -> None:
    """Add to `matched`, `done`, `copied` or `undone`."""
    with client.pipeline(transaction=False) as pipeline:
        for name, number in counts.items():
            pipeline.hincrby(_key(id), name, number)
        pipeline.execute()


def refuse(client: Redis, id: str, field: str, reasons: Counter[str]) -> None:
    """Add reasons to `refused` or `not_undone`; only the performing process does so."""
    if reasons:
        all = Counter(_reasons(as_text(client.hget(_key(id), field) or b""))) + reasons
        client.hset(_key(id), field, msgspec.json.encode(dict(all.most_common(MOST_REASONS))))


def change(client: Redis, id: str, **fields: Any) -> None:
    """Write fields of the record."""
    client.hset(_key(id), mapping={name: str(value) for name, value in fields.items()})


def undo_at(client: Redis, id: str) -> int:
    """The number of the chunk of copies that is to be put back next."""
    return wire.whole(as_text(client.hget(_key(id), "undo_at") or b""))


def _key(id: str) -> str:
    return f"pm:bulk:{id}"


def copies_key(id: str) -> str:
    """The list of the copies of the jobs that a bulk action deletes."""
    return f"pm:bulk:{id}:copies"


def _read(client: Redis, ids: Sequence[str]) -> list[Bulk | None]:
    commands: list[tuple[Any, ...]] = []
    for id in ids:
        commands += ("HGETALL", _key(id)), ("EXISTS", f"{_key(id)}:owner")
    replies = iter(pipelined(client, commands, None))
    return [_bulk(id, next(replies), bool(next(replies))) for id in ids]


def _bulk(id: str, found: Any, is_performed: bool) -> Bulk | None:
    fields = as_texts(found or {})
    if fields.get("act") is None or wire.number(fields.get("began")) is None:
        return None
    state = fields.get("state", "")
    return Bulk(
        id=id,
        act=fields["act"],
        text=fields.get("text", ""),
        at=wire.number(fields.get("at")) or 0.0,
        who=fields.get("who", ""),
        where=fields.get("where", ""),
        reason=fields.get("reason", ""),
        began=wire.number(fields["began"]) or 0.0,
        ended=wire.number(fields.get("ended")),
        phase="undo" if fields.get("phase") == "undo" else "act",
        state=state if state in STATES else "failed",
        found=wire.whole(fields.get("found")),
        is_partial=bool(fields.get("partial")),
        matched=wire.whole(fields.get("matched")),
        done=wire.whole(fields.get("done")),
        refused=_reasons(fields.get("refused", "")),
        copied=wire.whole(fields.get("copied")),
        undone=wire.whole(fields.get("undone")),
        not_undone=_reasons(fields.get("not_undone", "")),
        fault=fields.get("fault", ""),
        is_performed=is_performed,
    )


def _reasons(text: str) -> dict[str, int]:
    try:
        return msgspec.json.decode(text or "{}", type=dict[str, int])
    except UNREADABLE:
        return {}
