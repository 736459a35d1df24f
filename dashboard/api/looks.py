"""Looks at jobs that are followed: those of all followers in one round trip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from redis import Redis

from packmule.coordination.redis.replies import as_text, as_texts, pipelined
from packmule.jobs import keys, wire
from packmule.jobs.reader import Progress, progress_in
from packmule.jobs.watch import MOST_ENTRIES


class Look(NamedTuple):
    """A job, and the entry of its output behind which the follower is; None for one who sees no output."""

    id: str
    after: str | None


class Seen(NamedTuple):
    """What a look found: a status, "" if the job is gone, its progress, and more of its output."""

    status: str
    progress: Progress | None
    entries: Sequence[Any]

    @property
    def is_last(self) -> bool:
        """Whether nothing comes after this."""
        return (not self.status or self.status in wire.ENDED) and len(self.entries) < MOST_ENTRIES


def look_each(client: Redis, looks: Sequence[Look]) -> list[Seen]:
    """What each look finds, in one round trip."""
    commands: list[tuple[Any, ...]] = []
    for id, after in looks:
        # The status before the output, so that an end that it tells comes after all that was said.
        commands += ("HGET", keys.job_key(id), "status"), ("HGETALL", keys.progress_key(id))
        if after is not None:
            commands.append(("XRANGE", keys.output_key(id), f"({after}", "+", "COUNT", MOST_ENTRIES))
    replies = iter(pipelined(client, commands, None))
    found = []
    for each in looks:
        status, progress = next(replies), next(replies)
        entries = next(replies) if each.after is not None else ()
        found.append(Seen(as_text(status or b""), progress_in(as_texts(progress or {})), entries or ()))
    return found
