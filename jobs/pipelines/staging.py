"""Staging: where the steps of one flow write, until all of it is published or given up."""

from __future__ import annotations

import time
from pathlib import PurePosixPath
from typing import Annotated

import msgspec
from redis import Redis

from packmule.coordination.redis.replies import UNREADABLE, as_text, as_texts, pipelined
from packmule.jobs import batch_state, keys
from packmule.jobs.storage import MissingFile, Storage, safe_name

STAGING, RESULTS = "staging", "results"
MANIFEST = "manifest.json"

STAGED = "pm:pipelines"
"""Flows of pipelines, by when somebody last looked whether they still need their staging folder."""

LOOK_SECONDS = 3600.0
"""Until a look at a flow: by then, whoever was frozen amidst starting or performing it has lost it."""

AT_ONCE = 500


NAME = "^[A-Za-z0-9_-]{1,64}$"
"""What pipelines and their steps may be called."""


class Source(msgspec.Struct, frozen=True):
    """The file that a manifest is about."""

    path: str


class Staged(msgspec.Struct, frozen=True):
    """What a manifest that is about to be published says of its place."""

    pipeline: Annotated[str, msgspec.Meta(pattern=NAME)]
    source: Source


def staging_of(flow: str) -> str:
    """The folder in the storage in which the steps of `flow` write."""
    return f"{STAGING}/{flow}"


def place_of(pipeline: str, source: str, flow: str) -> str:
    """The folder in the storage in which what `flow` made of `source` appears.

    >>> place_of("intake", "uploads/5f0c/a.csv", "7f0c")
    'results/intake/a.csv/7f0c'
    """
    return f"{RESULTS}/{pipeline}/{safe_name(PurePosixPath(source).name)}/{flow}"


def note(redis: Redis, flow: str) -> None:
    """Remember that `flow` is to be looked after, before it begins."""
    redis.zadd(STAGED, {flow: time.time()})


def give_up(storage: Storage, flow: str) -> None:
    """Delete what `flow` has staged, and what of it is published, unless that is whole."""
    staging = staging_of(flow)
    try:
        manifest = msgspec.json.decode(storage.read_bytes(f"{staging}/{MANIFEST}"), type=Staged)
    except (MissingFile, *UNREADABLE):
        pass  # nothing is published before that is written
    else:
        place = place_of(manifest.pipeline, manifest.source.path, flow)
        if not storage.exists(f"{place}/{MANIFEST}"):
            storage.delete_folder(place)
    storage.delete_folder(staging)


def remove_leftovers(storage: Storage, redis: Redis) -> int:
    """Give up the staging folders of flows that are gone, canceled or done; how many flows these are.

    A failed flow keeps its folder for a retry, as long as it is kept itself.
    """
    count, now = 0, time.time()
    while True:
        looks = ("ZRANGE", STAGED, "-inf", now - LOOK_SECONDS, "BYSCORE", "LIMIT", 0, AT_ONCE)
        (found,) = pipelined(redis, [looks], [])
        if not found:
            return count
        flows = [as_text(each) for each in found]
        for member, flow, state in zip(found, flows, batch_state.read_each(redis, flows), strict=True):
            is_failed = state is not None and state.ended is not None and state.counts.failed > 0
            if state is not None and not state.is_canceled and (state.ended is None or is_failed):
                redis.zadd(STAGED, {member: now}, xx=True)
                continue
            if keys.JOB_ID.fullmatch(flow):  # otherwise it's none of ours
                give_up(storage, flow)
            redis.zrem(STAGED, member)
            count += 1


def states_of(redis: Redis, flow: str) -> dict[str, str]:
    """The letter of each job's state in a flow, by its id."""
    (found,) = pipelined(redis, [("HGETALL", f"{keys.batch_key(flow)}:jobs")], {})
    return as_texts(found)
