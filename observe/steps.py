"""Steps of jobs, read back: what each has done, and what it waits for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from redis import Redis
from redis.exceptions import ResponseError

from packmule.coordination.redis.replies import UNREADABLE, as_text
from packmule.jobs import keys
from packmule.jobs.steps import Kept

MOST = 2_000
"""Steps that are read of a job; ours keep half as many at most."""


class StepInfo(NamedTuple):
    """A step, sleep or wait: `kind` is `step`, `sleep` or `signal`, and `state` as in `jobs/steps.py`.

    `at` is when it ended or began, or until when it waits, in Unix seconds; `value` is its result.
    """

    kind: str
    name: str
    state: str
    at: float | None
    value: Any


def steps_of(client: Redis, id: str) -> Sequence[StepInfo]:
    """The steps of the job `id`, in the order in which it asked for them, without those that make no sense.

    >>> steps_of(client, "2a9f")  # doctest: +SKIP
    [StepInfo(kind='step', name='charge', state='done', at=1764504000.0, value='ch_1')]
    """
    try:
        if client.hlen(keys.steps_key(id)) > MOST or not client.hexists(keys.job_key(id), "steps"):
            return []
        found = client.hgetall(keys.steps_key(id))
    except ResponseError as error:
        if "WRONGTYPE" not in str(error):
            raise
        return []
    read = []
    for field, value in found.items():
        try:
            kept = msgspec.json.decode(value, type=Kept)
        except UNREADABLE:
            continue
        kind, _, name = as_text(field).partition(":")
        info = StepInfo(kind.partition("#")[0], name, kept.state, kept.at, kept.value)
        read.append((kept.place, info))
    return [info for _, info in sorted(read, key=lambda each: each[0])]
