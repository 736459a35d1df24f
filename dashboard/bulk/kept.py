"""Copies of the jobs that a bulk action deletes, kept for an hour so that they can be put back."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import msgspec
from redis import Redis
from redis.exceptions import OutOfMemoryError

from packmule.coordination.redis.replies import UNREADABLE, pipelined
from packmule.jobs.undeleting import Copy, copies_of
from packmule.units import MIB

TTL = 3_600
"""Seconds for which deleted jobs can be put back."""

MOST_JOBS, MOST_BYTES = 20_000, 32 * MIB
"""Jobs, and bytes of their compressed copies, that are kept of one bulk action."""

_decode = msgspec.msgpack.Decoder(list[Copy]).decode


class Copies:
    """The copies of one bulk action's jobs, under `key`: a list of chunks."""

    def __init__(self, client: Redis, key: str, jobs: int = 0) -> None:
        self.client = client
        self.key = key
        self.jobs = jobs
        self._bytes = 0

    def add(self, ids: Sequence[str]) -> list[Copy]:
        """Keep copies of jobs that are about to be deleted; none if there are too many of them already."""
        if self.jobs + len(ids) > MOST_JOBS or self._bytes > MOST_BYTES:
            return []
        copies = copies_of(self.client, ids)
        packed = _packed(copies)
        try:
            with self.client.pipeline(transaction=True) as pipeline:
                pipeline.rpush(self.key, packed)
                pipeline.expire(self.key, TTL)
                pipeline.execute()
        except OutOfMemoryError:  # the deletion itself makes room
            return []
        self.jobs += len(copies)
        self._bytes += len(packed)
        return copies

    def keep(self, copies: Sequence[Copy]) -> None:
        """Of the jobs added last only these were deleted."""
        before = len(self.chunk(-1) or ())
        pipelined(self.client, [("LSET", self.key, -1, _packed(copies))], None)
        self.jobs -= before - len(copies)

    def chunk(self, number: int) -> list[Copy] | None:
        """The copies of a chunk, from 0; None behind the last, none if they can't be read."""
        (packed,) = pipelined(self.client, [("LINDEX", self.key, number)], None)
        if packed is None:
            return None
        try:
            return _decode(zlib.decompress(packed))
        except (zlib.error, msgspec.ValidationError, *UNREADABLE):
            return []

    def seconds_left(self) -> float:
        """For how long they are kept; 0 if there are none."""
        return max(0.0, self.client.pttl(self.key) / 1000)


def _packed(copies: Sequence[Copy]) -> bytes:
    return zlib.compress(msgspec.msgpack.encode(copies), 1)
