"""Errors: failures of the same cause, counted together by the step that acknowledges each."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from redis import Redis

from packmule.coordination.redis.replies import as_text, pipelined
from packmule.coordination.redis.scripts import Script
from packmule.errors import NotFound
from packmule.jobs import control, keys, wire
from packmule.jobs.reader import NoSuchJob
from packmule.observe.events import LAST_AT

State = Literal["open", "resolved", "ignored"]
STATES: tuple[State, ...] = ("open", "resolved", "ignored")

HOUR, HOURS = 3600, 168
"""Seconds of an hour, and for how many hours failures are counted: 7 days."""

MOST = 500
"""Errors that are kept; `errors.lua` has it too."""

MOST_JOBS = 1000
"""Jobs of each error that are kept; `errors.lua` has it too."""

FINGERPRINT = re.compile(r"[0-9a-f]{12}")

_FIELDS = ("total", "state", "type", "text", "where", "job", "first", "last", "job_id", "queues", "releases")

_mark = Script("jobs", "mark_error")


class NoSuchError(NotFound, LookupError):
    """No error has that fingerprint: none ever had, or it was seen too long ago."""


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """Failures with the same `fingerprint`, `total` in all; times are in Unix seconds, None if unknown.

    `type` is the error's class, `text` what the last one said, `where` the innermost function of the job's
    own code, and `job` the name of the job's callable. `last_job` is the id of the last job. `queues` and
    `releases` are the latest ten in which it was seen. `hours` counts the failures of each hour, this one
    last.
    """

    fingerprint: str
    state: State
    type: str
    text: str
    where: str
    job: str
    total: int
    first_at: float | None
    last_at: float | None
    last_job: str
    queues: tuple[str, ...]
    releases: tuple[str, ...]
    hours: tuple[int, ...]


class ErrorDetails(NamedTuple):
    """An error, the `traceback` of one of its failures, and the ids of the last `jobs` that failed of it."""

    error: ErrorInfo
    traceback: str | None
    jobs: list[str]


class Retried(NamedTuple):
    """The ids of jobs that were enqueued again, and of those that can't run again now, with the reason."""

    jobs: list[str]
    refused: dict[str, str]


def read_all(client: Redis, states: Sequence[str] = STATES, hours: int = 24) -> list[ErrorInfo]:
    """The errors in one of these `states`, the last seen first, with the counts of the last `hours`."""
    (found,) = pipelined(client, [("ZREVRANGE", keys.ERRORS, 0, MOST - 1)], ())
    fingerprints = [name for each in found if FINGERPRINT.fullmatch(name := as_text(each))]
    now = time.time()
    commands = [_read_command(each, now, hours) for each in fingerprints]
    replies = zip(fingerprints, pipelined(client, commands, None), strict=True)
    errors = (_info(each, reply, now, hours) for each, reply in replies)
    return [each for each in errors if each is not None and each.state in states]


def read(client: Redis, fingerprint: str) -> ErrorDetails:
    """The error `fingerprint`, with the counts of 7 days. Raises `NoSuchError`.

    >>> read(client, "3f9a61c204be").error.total  # doctest: +SKIP
    1204
    """
    key, now = _key(fingerprint), time.time()
    reply, example, jobs = pipelined(
        client,
        [
            _read_command(fingerprint, now, HOURS),
            ("HGET", key, "example"),
            ("LRANGE", f"{key}:jobs", 0, MOST_JOBS - 1),
        ],
        None,
    )
    error = _info(fingerprint, reply, now, HOURS)
    if error is None:
        raise _no_such(fingerprint)
    return ErrorDetails(
        error, wire.traceback(as_text(example)) if example else None, [*map(as_text, jobs or ())]
    )


def mark(client: Redis, fingerprint: str, state: State) -> State:
    """Resolve or ignore an error, or open it again; its state before. Raises `NoSuchError`.

    A resolved error that is seen again is open and emits `error_again`; an ignored one emits nothing.
    """
    before = as_text(_mark(client, [_key(fingerprint), keys.SETTLED_ERRORS], [fingerprint, state]))
    if not before:
        raise _no_such(fingerprint)
    return _state(before)


def retry(client: Redis, fingerprint: str) -> Retried:
    """Enqueue the jobs again that failed of this error last and are still there. Raises `NoSuchError`.

    Only the last `MOST_JOBS` are known. A job that ran again meanwhile and failed of something else, or did
    not fail, is left alone, so an interrupted call can be repeated.
    """
    ids = read(client, fingerprint).jobs
    commands = [("HMGET", keys.job_key(id), "status", "fingerprint") for id in ids]
    retried = Retried([], {})
    for id, found in zip(ids, pipelined(client, commands, (None, None)), strict=True):
        if id in retried.jobs or [*found] != [b"failed", fingerprint.encode()]:
            continue
        try:
            control.retry(client, id)
            retried.jobs.append(id)
        except control.NotRetried as error:
            retried.refused[id] = str(error)
        except NoSuchJob:
            continue  # it expired meanwhile
    return retried


def forget(client: Redis, fingerprint: str) -> None:
    """Delete an error and its counts, if it is there. If it is seen again, it is a new one."""
    key = _key(fingerprint)
    with client.pipeline(transaction=True) as pipeline:
        pipeline.delete(key, f"{key}:jobs")
        pipeline.zrem(keys.ERRORS, fingerprint)
        pipeline.zrem(keys.SETTLED_ERRORS, fingerprint)
        pipeline.execute()


def _key(fingerprint: str) -> str:
    if not FINGERPRINT.fullmatch(fingerprint):
        raise _no_such(fingerprint)
    return keys.error_key(fingerprint)


def _no_such(fingerprint: str) -> NoSuchError:
    return NoSuchError(f"no error has the fingerprint {fingerprint}: see packmule errors list --state all")


def _slots(now: float, hours: int) -> list[int]:
    """The last hours, this one last, counted from 1970."""
    this = int(now // HOUR)
    return [*range(this - hours + 1, this + 1)]


def _read_command(fingerprint: str, now: float, hours: int) -> tuple[str, ...]:
    slots = (f"h{hour % HOURS}" for hour in _slots(now, hours))
    return ("HMGET", keys.error_key(fingerprint), *_FIELDS, *slots)


def _info(fingerprint: str, reply: Sequence[bytes | None] | None, now: float, hours: int) -> ErrorInfo | None:
    """The error in a reply to `_read_command`; None if there is none, or its key holds something else."""
    if reply is None or reply[0] is None:
        return None
    texts = [as_text(value or b"") for value in reply]
    said: dict[str, Any] = dict(zip(_FIELDS, texts, strict=False))
    counts = zip(_slots(now, hours), texts[len(_FIELDS) :], strict=True)
    return ErrorInfo(
        fingerprint,
        _state(said["state"]),
        said["type"],
        said["text"],
        said["where"],
        said["job"],
        wire.whole(said["total"]),
        _instant(said["first"]),
        _instant(said["last"]),
        said["job_id"],
        tuple(said["queues"].split("\n")) if said["queues"] else (),
        tuple(said["releases"].split("\n")) if said["releases"] else (),
        tuple(_count(text, hour) for hour, text in counts),
    )


def _state(text: str) -> State:
    return next((each for each in STATES if each == text), "open")


def _count(text: str, hour: int) -> int:
    """The count in a field of an hour, which has the hour of an earlier week if nothing failed since."""
    of, _, count = text.partition(" ")
    return wire.whole(count) if of == str(hour) else 0


def _instant(text: str) -> float | None:
    """Unix seconds; None for what is none, or beyond all calendars."""
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if 0 <= seconds < LAST_AT else None
