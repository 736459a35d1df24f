"""Stack dumps: ask a worker from afar what its threads do. A dump has names of functions, and no values."""

from __future__ import annotations

import time

import msgspec
from redis import Redis

from packmule.coordination.redis.replies import UNREADABLE, pipelined
from packmule.errors import Conflict
from packmule.jobs import cluster, keys
from packmule.jobs.cluster import send_command

COMMAND = "dump-stacks"

TTL = 900
"""Seconds for which a dump can be read."""

MOST_CHARACTERS = 64 * 1024
MOST_BYTES = 512 * 1024
"""Of a record that are read, whoever has written it."""

MOST_JOBS, LONGEST_ID = 1_000, 300
"""Of the jobs in it, and of each one's id."""

ANSWER_SECONDS = 4.0
"""How long to wait for a dump, unless told otherwise; the pool of the worker takes less than two."""

LOOK_INTERVAL, AGAIN_INTERVAL = 0.05, 1.5
"""Seconds between two looks for the dump, and until the command is sent again: it may have been lost."""


class NoStacks(Conflict, TimeoutError):
    """A worker did not write its stacks when it was asked."""


class StackDump(msgspec.Struct, frozen=True):
    """The stacks of all threads of a worker and of what it has forked, as `text`, at the Unix time `at`.

    `jobs` ran then. It `is_whole` unless a process kept silent, or the text was too long.
    """

    id: str
    at: float
    text: str
    jobs: tuple[str, ...] = ()
    is_whole: bool = True


def ask(client: Redis, worker: str, timeout: float = ANSWER_SECONDS) -> StackDump:
    """Ask a worker for its stacks. Raises `NoSuchWorker`, and `NoStacks` if no answer comes in time.

    Its jobs aren't disturbed.

    >>> print(ask(client, "host.32312.c89422").text)  # doctest: +SKIP
    Process 32313, the worker: ...
    """
    if cluster.worker(client, worker)["state"] == "vanished":
        raise NoStacks(f"{worker} can't answer: its lease has ended, so it is gone or can't reach Redis")
    earlier = read(client, worker)
    until, send_at = time.monotonic() + timeout, 0.0
    while time.monotonic() < until:
        if time.monotonic() >= send_at:
            send_command(client, worker, COMMAND)
            send_at = time.monotonic() + AGAIN_INTERVAL
        time.sleep(LOOK_INTERVAL)
        found = read(client, worker)
        if found is not None and (earlier is None or found.id != earlier.id):
            return found
    cluster.worker(client, worker)  # it may have ended meanwhile
    raise NoStacks(
        f"{worker} did not answer within {timeout:g} s: its pool is stopped or can't reach Redis, or it is a "
        "worker of stock RQ or of an older release"
    )


def read(client: Redis, worker: str) -> StackDump | None:
    """The last dump of a worker, unless it is too old or was never asked for."""
    (found,) = pipelined(client, [("GETRANGE", keys.stacks_key(worker), 0, MOST_BYTES)], b"")
    try:
        dump = msgspec.json.decode(found, type=StackDump)
    except UNREADABLE:
        return None
    jobs = tuple(id for id in dump.jobs[:MOST_JOBS] if len(id) <= LONGEST_ID)
    return msgspec.structs.replace(dump, text=dump.text[:MOST_CHARACTERS], jobs=jobs)


def store(client: Redis, worker: str, dump: StackDump) -> None:
    """Keep a dump for those who asked."""
    client.set(keys.stacks_key(worker), msgspec.json.encode(dump), ex=TTL)
