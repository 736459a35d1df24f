"""Undeleting: copies of jobs that are about to be deleted, by which they can be put back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec
from redis import Redis
from redis.exceptions import RedisError

from packmule.coordination.redis.replies import as_text, pipelined
from packmule.coordination.redis.scripts import Script
from packmule.errors import Conflict, Error
from packmule.jobs import keys, wire

_undelete = Script("jobs", "undelete")

_FACTS = ("status", "origin", "group", "unique", "limits", "batch", "waits")

_REGISTRY = {
    "finished": "finished",
    "failed": "failed",
    "stopped": "failed",
    "canceled": "canceled",
    "scheduled": "scheduled",
    "deferred": "deferred",
}


class NotUndeleted(Conflict):
    """A deleted job can't be put back."""


class Copy(msgspec.Struct, frozen=True, array_like=True):
    """A job as it was: what its record said, and the registry that had it with its score.

    `kept` has the job's keys, its record first: the name, what Redis's DUMP gave, and when it expires in Unix
    milliseconds, 0 for never.
    """

    id: str
    status: str
    queue: str
    group: str
    unique: str
    limits: str
    batch: str
    waits: str
    registry: str
    score: str
    kept: list[tuple[str, bytes, int]]


def copies_of(client: Redis, ids: Sequence[str]) -> list[Copy]:
    """A copy of each of the jobs `ids` that is there, in two round trips."""
    found = pipelined(client, [("HMGET", keys.job_key(id), *_FACTS) for id in ids], None)
    facts = [[as_text(each or b"") for each in fields or [b""] * len(_FACTS)] for fields in found]
    commands: list[tuple[Any, ...]] = [("TIME",)]
    for id, (status, queue, *_) in zip(ids, facts, strict=True):
        commands.append(("ZSCORE", _registry(status, queue), id))
        for key in _keys(id):
            commands += ("DUMP", key), ("PTTL", key)
    clock, *replies = pipelined(client, commands, None)
    now = clock[0] * 1000 + clock[1] // 1000
    width = 1 + 2 * len(_keys(""))
    copies = []
    for number, (id, said) in enumerate(zip(ids, facts, strict=True)):
        status, queue, group, unique, limits, batch, waits = said
        score, *dumps = replies[number * width : (number + 1) * width]
        kept = [
            (key, dump, now + left if left and left > 0 else 0)
            for key, dump, left in zip(_keys(id), dumps[::2], dumps[1::2], strict=True)
            if dump is not None
        ]
        if kept and kept[0][0] == keys.job_key(id):
            registry, at = ("", "0") if score is None else (_registry(status, queue), repr(float(score)))
            copies.append(
                Copy(str.__str__(id), status, queue, group, unique, limits, batch, waits, registry, at, kept)
            )
    return copies


def undelete(client: Redis, copies: Sequence[Copy]) -> list[Error | None]:
    """Put jobs back, in one round trip; the error of each that can't be.

    A job that waited in its queue goes to its end. Refused are jobs that are there, that waited in a batch
    or flow, which has counted them as canceled, that waited for other jobs, whose unique or singleton's place
    another job has now, and those whose time to live is over meanwhile.
    """
    errors: list[Error | None] = [_refusal(copy) for copy in copies]
    sent = [(place, copy) for place, copy in enumerate(copies) if errors[place] is None]
    now = wire.time_text(time.time())
    calls = [
        (
            [keys.job_key(copy.id), keys.UNIQUE],
            [
                copy.id,
                now,
                copy.status,
                copy.queue,
                copy.group,
                copy.unique,
                copy.limits,
                copy.registry,
                copy.score,
            ]
            + [part for key in copy.kept for part in key],
        )
        for _, copy in sent
    ]
    for (place, copy), reply in zip(sent, _undelete.each(client, calls), strict=True):
        if isinstance(reply, RedisError):
            raise reply
        errors[place] = _judge(copy.id, as_text(reply))
    return errors


def _refusal(copy: Copy) -> NotUndeleted | None:
    reason = None
    if copy.status in wire.ALIVE and copy.batch:
        reason = f"batch or flow {copy.batch} has counted it as canceled"
    elif copy.status == "deferred" and not copy.waits:
        reason = "it waited for other jobs"
    elif copy.status not in _REGISTRY and copy.status != "queued":
        reason = f"it was {copy.status or 'without a status'}"
    elif copy.status in ("scheduled", "deferred") and not copy.registry:
        reason = "nothing said when it was due"
    return NotUndeleted(f"job {copy.id} can't be restored: {reason}") if reason else None


def _judge(id: str, verdict: str) -> NotUndeleted | None:
    if verdict == "undeleted":
        return None
    reasons = {
        "exists": "it is there",
        "expired": "its time to live is over",
        "unreadable": "this server can't read its copy",
    }
    reason = reasons.get(verdict) or f"job {verdict.removeprefix('held ')} holds its place"
    return NotUndeleted(f"job {id} can't be restored: {reason}")


def _keys(id: str) -> tuple[str, ...]:
    """A job's record, and the keys that are deleted with it."""
    return (
        keys.job_key(id),
        keys.results_key(id),
        keys.progress_key(id),
        keys.steps_key(id),
        keys.log_key(id),
        keys.output_key(id),
    )


def _registry(status: str, queue: str) -> str:
    return keys.registry_key(_REGISTRY.get(status, "canceled"), queue)
