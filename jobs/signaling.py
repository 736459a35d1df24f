"""Signals: what is sent by name to one job, which may wait for it."""

from __future__ import annotations

import secrets
import time
from typing import Any, Literal, cast

from redis import Redis

from packmule.coordination.redis.replies import as_text
from packmule.coordination.redis.scripts import Script
from packmule.errors import Conflict, UsageError
from packmule.jobs import keys, wire
from packmule.jobs.reader import no_such_job
from packmule.jobs.steps import checked_name
from packmule.units import KIB

MOST_SIGNALS = 100
MOST_BYTES = 256 * KIB
"""Signals, and bytes of their data as JSON, that are kept for a job until it waits for them."""

MOST_DATA_BYTES = 64 * KIB
"""Bytes of JSON that the data of one signal may take."""

_signal = Script("jobs", "signal")


class NotSignaled(Conflict):
    """The state of a job does not allow a signal: it has ended, did not ask, or too many wait for it."""


class InvalidSignal(UsageError, ValueError):
    """The data of a signal can't be sent; nothing was."""


def signal(client: Redis, id: str, name: str, data: Any = None) -> Literal["woken", "kept"]:
    """Send the job `id` the signal `name` with `data`, any value that JSON can hold, once.

    If the job waits for it (`current.wait_for`), it goes on at once and the reply is `woken`. Otherwise the
    signal is `kept` until the job asks for it. A signal `step:<name>` answers for a step whose end is unknown
    (`if_unknown="ask"`): its data is `"again"`, or `{"done": result}`. Raises `NoSuchJob`, `NotSignaled`,
    `InvalidSignal` and `InvalidStep`.

    >>> signal(client, "2a9f", "approved", {"by": "ada"})  # doctest: +SKIP
    'woken'
    """
    data_json = written(name, data)
    key_names = [keys.job_key(id), keys.signaled_key(secrets.token_hex(8))]
    args = [id, name, data_json, wire.time_text(time.time()), MOST_SIGNALS, MOST_BYTES]
    verdict = as_text(_signal(client, key_names, args))
    if not verdict:
        raise no_such_job(id)
    if verdict == "full":
        raise NotSignaled(
            f"job {id} holds at most {MOST_SIGNALS} signals and {MOST_BYTES // KIB} KiB of data until it "
            "asks for them: send this one later"
        )
    if verdict == "unasked":
        raise NotSignaled(
            f"job {id} doesn't wait for {name}: it does so only if a run finds that step unfinished"
        )
    if verdict not in ("woken", "kept"):
        raise has_ended(id, verdict)
    return cast(Literal["woken", "kept"], verdict)


def has_ended(id: str, status: str) -> NotSignaled:
    """The error to raise for a signal to a job that has ended."""
    return NotSignaled(f"job {id} is {status}: only jobs that have not ended take signals")


def written(name: str, data: Any) -> bytes:
    """The data of the signal `name` as JSON. Raises `InvalidSignal` and `InvalidStep`."""
    checked_name("signal", name)
    try:
        encoded = wire.encode_value(data)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidSignal(f"signal {name!r}: its data can't be written as JSON: {error}") from None
    if len(encoded) > MOST_DATA_BYTES:
        raise InvalidSignal(
            f"signal {name!r}: its data takes {len(encoded)} bytes, over the limit of {MOST_DATA_BYTES}: "
            "put the data in storage and send its path"
        )
    if name.startswith("step:") and data != "again" and not (isinstance(data, dict) and [*data] == ["done"]):
        raise InvalidSignal(f'signal {name!r} settles a step: its data is "again" or {{"done": result}}')
    return encoded
