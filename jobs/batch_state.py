"""The state of batches as Redis has it: counts, flags and times; and the latest batches."""

from __future__ import annotations

from typing import NamedTuple, cast

from redis import Redis
from redis.exceptions import ResponseError

from packmule.coordination.redis.replies import as_text, as_texts
from packmule.errors import NotFound
from packmule.jobs import keys, wire


class NoSuchBatch(NotFound, LookupError):
    """No batch has that id: it never existed, or it ended longer ago than it was kept."""


def no_such_batch(id: str) -> NoSuchBatch:
    """The error to raise for an id that names no batch."""
    return NoSuchBatch(f"no batch has the id {id}: check the id; it may also have ended too long ago")


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
    fields = as_texts(found)
    if "created" not in fields:
        raise no_such_batch(id)
    counts = Counts(*(wire.whole(fields.get(name)) for name in Counts._fields))
    return State(
        id,
        fields.get("name", ""),
        counts,
        "sealed" in fields,
        bool(is_paused),
        "stopped" in fields,
        _seconds(fields["created"]) or 0.0,
        _seconds(fields.get("ended")),
        fields.get("parent"),
    )


def latest(client: Redis, limit: int = 20) -> list[State]:
    """The latest `limit` batches that are still kept, the newest first."""
    found = []
    for id in cast(list[bytes], client.zrevrange(keys.BATCHES, 0, limit - 1)):
        try:
            found.append(read(client, as_text(id)))
        except NoSuchBatch:
            client.zrem(keys.BATCHES, id)
    return found


def _seconds(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
