"""What became of one file in a pipeline: where its results are, or why there are none."""

from __future__ import annotations

from typing import NamedTuple

from redis import Redis

from packmule.jobs import reader
from packmule.jobs.batch import Batch
from packmule.jobs.batch_state import State
from packmule.jobs.pipelines.staging import MANIFEST, place_of
from packmule.jobs.reader import NoSuchJob
from packmule.jobs.storage import Storage
from packmule.plain_text import one_line

LONGEST_REASON = 300


class Outcome(NamedTuple):
    """How a flow has ended: `text` is the path of the manifest if it `is_done`, otherwise why it isn't."""

    is_done: bool
    text: str


def outcome(storage: Storage, redis: Redis, pipeline: str, source: str, state: State) -> Outcome:
    """The outcome of a flow that has ended, or of which all is published."""
    path = f"{place_of(pipeline, source, state.id)}/{MANIFEST}"
    if storage.exists(path):
        return Outcome(True, path)
    if state.is_canceled:
        return Outcome(False, f"canceled: flow {state.id}")
    id = min(Batch(redis, state.id).failed(), key=lambda id: (len(id), id), default="")
    try:
        info = reader.read(redis, id)
    except NoSuchJob:
        return Outcome(False, f"failed: flow {state.id}")
    reason = one_line(info.reason or info.status, LONGEST_REASON)
    return Outcome(False, f"failed: {info.name.rpartition('.')[2]}: {reason}: packmule flow retry {state.id}")
