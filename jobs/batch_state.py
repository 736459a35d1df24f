"""The state of batches as Redis has it: counts, flags and times; and the latest batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from redis import Redis
from redis.exceptions import ResponseError

from packmule.coordination.redis.replies import as_text, as_texts, pipelined
from packmule.errors import NotFound
from packmule.jobs import keys, wire

AT_ONCE, MOST_LOOKED = 500, 2_000
"""Batches that one round trip of `page` reads, and that one call looks at."""

JOBS_A_LOOK, MOST_LOOKS = 2_000, 5
"""Jobs of a batch that one round trip of `some_jobs` looks at, and how many there are."""


class NoSuchBatch(NotFound, LookupError):
    """No batch has that id: it never existed, or it ended longer ago than it was kept."""


def no_such_batch(id: str) -> NoSuchBatch:
    """The error to raise for an id that names no batch."""
    advice = keys.or_too_short("check the id; it may also have ended too long ago", id)
    return NoSuchBatch(f"no batch has the id {id}: {advice}")


class Counts(NamedTuple):
    """The number of jobs in a batch, and how many of them ended how. A nested batch counts as one job."""

    total: int
    done: int
    failed: int
    canceled: int

    @property
    def pending(self) -> int:
        """The number of jobs that have not ended."""
        return max(0, self.total - self.done - self.failed - self.canceled)


class State(NamedTuple):
    """A batch at one moment; times are Unix seconds. A batch that is not sealed can grow and can't end."""

    id: str
    name: str
    counts: Counts
    is_sealed: bool
    is_paused: bool
    is_canceled: bool
    created: float
    ended: float | None
    parent: str | None


def read(client: Redis, id: str) -> State:
    """The batch `id` as it is now, in one round trip. Raises `NoSuchBatch`."""
    with client.pipeline(transaction=False) as pipeline:
        pipeline.hgetall(keys.batch_key(id))
        pipeline.sismember(keys.PAUSED_BATCHES, id)
        try:
            found, is_paused = pipeline.execute()
        except ResponseError as error:
            if "WRONGTYPE" not in str(error):
                raise
            raise NoSuchBatch(f"batch {id} can't be read: {error}") from None
    state = _state(id, as_texts(found), bool(is_paused))
    if state is None:
        raise no_such_batch(id)
    return state


def read_each(client: Redis, ids: Sequence[str]) -> list[State | None]:
    """Batches as they are now, in one round trip; None for one that there is not."""
    commands: list[tuple[Any, ...]] = [("HGETALL", keys.batch_key(id)) for id in ids]
    replies = pipelined(client, [*commands, *(("SISMEMBER", keys.PAUSED_BATCHES, id) for id in ids)], None)
    pairs = zip(ids, replies, replies[len(ids) :], strict=False)
    return [_state(id, as_texts(fields or {}), bool(is_paused)) for id, fields, is_paused in pairs]


class Page(NamedTuple):
    """Some batches, the newest first. The next page begins after `next` others, None at the end."""

    states: list[State]
    next: int | None


def page(
    client: Redis, skip: int = 0, count: int = 50, fits: Callable[[State, bool], bool] | None = None
) -> Page:
    """The `count` latest batches that fit, after the `skip` latest ones.

    `fits` is asked with each state and whether it is a flow's. One call looks at `MOST_LOOKED` batches, in a
    few round trips; if it finds fewer that fit, the next page goes on there.

    >>> page(client, fits=lambda state, is_flow: is_flow).states[0].name  # doctest: +SKIP
    'nightly'
    """
    found: list[State] = []
    at = skip
    while at < skip + MOST_LOOKED:
        (ids,) = pipelined(client, [("ZREVRANGE", keys.BATCHES, at, at + AT_ONCE - 1)], ())
        names = [as_text(id) for id in ids]
        commands: list[tuple[Any, ...]] = [("HGETALL", keys.batch_key(id)) for id in names]
        replies = pipelined(
            client, [*commands, *(("SISMEMBER", keys.PAUSED_BATCHES, id) for id in names)], None
        )
        for number, (id, fields) in enumerate(zip(names, replies, strict=False)):
            at += 1
            texts = as_texts(fields or {})
            state = _state(id, texts, bool(replies[len(names) + number]))
            if state is not None and (fits is None or fits(state, "start" in texts)):
                found.append(state)
                if len(found) == count:
                    return Page(found, at)
        if len(names) < AT_ONCE:
            return Page(found, None)
    return Page(found, at)


def some_jobs(client: Redis, id: str, letter: str, most: int) -> tuple[list[str], bool]:
    """At most `most` jobs of a batch in a state, such as "f" for failed ones; and whether these are all.

    It looks at some ten thousand of the batch's jobs. A nested batch is `batch:<id>`.
    """
    found: list[str] = []
    cursor = 0
    for _ in range(MOST_LOOKS):
        (scan,) = pipelined(
            client, [("HSCAN", f"{keys.batch_key(id)}:jobs", cursor, "COUNT", JOBS_A_LOOK)], None
        )
        if scan is None:
            return found, True
        cursor = scan[0]
        found += [as_text(job) for job, at in scan[1].items() if as_text(at) == letter]
        if cursor == 0 or len(found) > most:
            break
    return found[:most], cursor == 0 and len(found) <= most


def callbacks(client: Redis, id: str) -> dict[str, str]:
    """The ids of a batch's callbacks: that of `on_complete`, `on_success` or both."""
    fields = ("on_complete", "on_success")
    (found,) = pipelined(client, [("HMGET", keys.batch_key(id), *fields)], (None, None))
    return {name: as_text(job) for name, job in zip(fields, found, strict=True) if job}


def _state(id: str, fields: dict[str, str], is_paused: bool) -> State | None:
    if "created" not in fields:
        return None
    counts = Counts(*(wire.whole(fields.get(name)) for name in Counts._fields))
    return State(
        id,
        fields.get("name", ""),
        counts,
        "sealed" in fields,
        is_paused,
        "stopped" in fields,
        wire.number(fields["created"]) or 0.0,
        wire.number(fields.get("ended")),
        fields.get("parent"),
    )


def latest(client: Redis, limit: int = 20) -> list[State]:
    """The latest `limit` batches that are still kept, the newest first, in two trips."""
    (found,) = pipelined(client, [("ZREVRANGE", keys.BATCHES, 0, limit - 1)], (), only="WRONGTYPE")
    states = read_each(client, [as_text(id) for id in found])
    if gone := [id for id, state in zip(found, states, strict=True) if state is None]:
        client.zrem(keys.BATCHES, *gone)
    return [state for state in states if state is not None]
