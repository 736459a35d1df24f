"""Slots of limits: take one from a job whose worker is gone."""

from __future__ import annotations

from redis import Redis

from packmule.coordination.redis.replies import as_text
from packmule.coordination.redis.scripts import Script
from packmule.errors import Conflict
from packmule.jobs import keys

_release = Script("jobs", "release_slot")


class SlotNotReleased(Conflict):
    """A job holds no such slot, or still runs and keeps it."""


def release_slot(client: Redis, key: str, job: str, force: bool = False) -> str:
    """Take the slot of `key` from `job`, so that the next job can have it; the worker that held it.

    The job itself is left alone: if it still runs, it goes on beside the next holder. A slot whose worker
    still claims the job is therefore released only with `force`. Raises `SlotNotReleased`.
    """
    verdict, worker = map(as_text, _release(client, [keys.holders_key(key)], [key, job, int(force)]))
    if not verdict:
        raise SlotNotReleased(f"job {job} holds no slot of {key}: packmule limits lists the jobs that do")
    if verdict == "alive":
        raise SlotNotReleased(
            f"job {job} runs on worker {worker}: cancel it (packmule job cancel {job}), "
            "or add --force to let another job run beside it"
        )
    return worker
