"""Resolving unknown mails: somebody found out whether they were sent, and their jobs go on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from redis import Redis
from redis.exceptions import RedisError

from packmule.coordination.redis.replies import as_text, pipelined
from packmule.coordination.redis.scripts import Script
from packmule.errors import Conflict, Error
from packmule.jobs import keys, wire
from packmule.jobs.email.ledger import names
from packmule.jobs.email.ledger.entry import LETTERS, Entry
from packmule.jobs.email.outcome import State
from packmule.units import DAY

KEEP = 30 * DAY

_resolve = Script("jobs.email.ledger", "resolve")


class NotUnknown(Conflict):
    """A mail's state is known: there is nothing to resolve."""


class NotSentAgain(Conflict):
    """The job of a mail that was not sent has ended, so that nobody sends it."""


class Resolved(NamedTuple):
    """Mails `done`, and why others were not; the `jobs` that run again, and why others do not."""

    done: int
    refused: list[Error]
    jobs: list[str]
    left: list[Error]


def resolve(
    client: Redis, entries: Sequence[Entry], *, was_sent: bool, who: str = "", keep: float = KEEP
) -> Resolved:
    """Take these unknown mails for sent, or for mails that were not sent and are to be.

    Then the jobs that failed for them run again: they send what was not sent, and finish. `who` is noted.

    >>> resolve(client, [entry], was_sent=True, who="ada@ops")  # doctest: +SKIP
    """
    state = LETTERS[State.ACCEPTED if was_sent else State.RESERVED]
    by = f" by {who}" if who else ""
    reply = f"resolved{by}: it was {'sent' if was_sent else 'not sent'}"[:120]
    now = wire.time_text(time.time())
    calls = [
        (
            [names.mail_key(entry.id), names.counts_key(entry.send), *names.INDEXES],
            [now, int(keep), state, reply, entry.execution],
        )
        for entry in entries
    ]
    refused: list[Error] = []
    done: list[Entry] = []
    for entry, answer in zip(entries, _resolve.each(client, calls) if calls else (), strict=True):
        if isinstance(answer, RedisError):
            raise answer
        if answer:
            done.append(entry)
        else:
            refused.append(NotUnknown(f"mail {entry.id} to {entry.recipient} is not unknown (any more)"))
    jobs = list(dict.fromkeys(entry.job for entry in done if entry.job))
    again, left = _run_again(client, jobs, was_sent)
    return Resolved(len(done), refused, again, left)


def _run_again(client: Redis, jobs: Sequence[str], was_sent: bool) -> tuple[list[str], list[Error]]:
    """Let jobs run again that ended without their mails; those that do, and why others don't."""
    from packmule.jobs.control import retry_each  # noqa: PLC0415  it loads RQ's job

    replies = pipelined(client, [("HGET", keys.job_key(job), "status") for job in jobs], None)
    statuses = {job: as_text(reply) if reply else "gone" for job, reply in zip(jobs, replies, strict=True)}
    ended = [job for job in jobs if statuses[job] in ("failed", "stopped", "canceled")]
    errors = retry_each(client, ended) if ended else []
    left = [error for error in errors if error is not None]
    if not was_sent:
        left += [
            NotSentAgain(f"job {job} is {status}: enqueue its mail again, under the same key")
            for job, status in statuses.items()
            if status in ("finished", "gone")
        ]
    return [job for job, error in zip(ended, errors, strict=True) if error is None], left
