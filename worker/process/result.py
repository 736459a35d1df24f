"""Results: the JSON of what jobs return, within bounds; RQ's `Retry` among it asks for another attempt."""

from __future__ import annotations

from typing import Any

import rq

from packmule.errors import UsageError
from packmule.jobs import wire
from packmule.jobs.interrupts import Retry
from packmule.worker.process.lookup import Lookup


class ResultTooLarge(UsageError, ValueError):
    """A job returned more than a result may hold."""


class ResultUnwritable(UsageError, TypeError):
    """A job returned what JSON can't hold."""


NOT_KEPT = ResultTooLarge | ResultUnwritable
"""What another attempt would meet again, after it had done all of its work a second time."""


class Returned(Retry):
    """RQ's `Retry`, which a job returned, also as its result."""

    result = b""


def encoded(value: Any, name: str, attempt: int, lookup: Lookup, max_bytes: int) -> bytes:
    """The JSON of what the job type `name` returned.

    Raises `ResultUnwritable`, `ResultTooLarge` if it has more than `max_bytes`, and `Returned` in place of a
    `Retry` of RQ's.
    """
    if isinstance(value, rq.Retry):
        raise _asked_to_retry(value, attempt, lookup)
    try:
        result = lookup.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ResultUnwritable(f"{name} returned what JSON can't hold: {error}") from None
    if len(result) > max_bytes:
        raise ResultTooLarge(
            f"{name} returned {len(result):,} bytes, but a result may hold {max_bytes:,}: "
            "put the data in storage and return its path, or raise PACKMULE_MAX_RESULT_BYTES"
        )
    return result


def _asked_to_retry(returned: rq.Retry, attempt: int, lookup: Lookup) -> Returned:
    """Our `Retry` for a job that returned RQ's."""
    after = returned.intervals[min(attempt, len(returned.intervals)) - 1] if returned.intervals else 0
    asked = Returned(after, "the job returned a Retry", limit=returned.max + 1)
    try:
        asked.result = lookup.encode(returned)
    except (TypeError, ValueError):
        asked.result = wire.encode_json(repr(returned))
    return asked
