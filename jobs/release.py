"""Releasing by hand: a slot is taken from a job whose worker is gone, and the next in line goes on."""

from __future__ import annotations

from redis import Redis

from packmule.coordination.redis.scripts import Script
from packmule.jobs import wire

_release = Script("jobs", "release_slot", after=wire.LIMITS)


class NotReleased(RuntimeError):
    """A slot stays as it is; the text says why."""


def release(client: Redis, key: str, job: str, force: bool = False) -> str:
    """Take the slot of `key` from `job`; the name of the worker that had it.

    The job itself is left alone: one that runs goes on, beside whoever gets the slot then. So a slot whose
    worker still claims the job is released only by `force`. Raises `NotReleased`.
    """
    verdict, worker = map(wire.text, _release(client, [wire.holders_key(key)], [key, job, int(force)]))
    if not verdict:
        raise NotReleased(f"job {job} holds no slot of {key}: packmule limits lists those that do")
    if verdict == "alive":
        raise NotReleased(
            f"job {job} runs on worker {worker}: cancel it (packmule job cancel {job}), "
            "or add --force to let another run beside it"
        )
    return worker
