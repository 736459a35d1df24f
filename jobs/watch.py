"""Watch what a job says: the lines of its log and the chunks of its output, what is kept and what comes."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
from redis import Redis
from redis.exceptions import ResponseError

from packmule.coordination.redis.backoff import REDIS_ERRORS, BackOff, is_transient
from packmule.coordination.redis.replies import UNREADABLE, as_text
from packmule.errors import UsageError
from packmule.jobs import keys, said, wire
from packmule.jobs.handle import in_thread
from packmule.jobs.reader import NoSuchJob, no_such_job
from packmule.jobs.said import Line

BLOCK_SECONDS = 0.25
"""A watcher asks this often whether the job has ended if it says nothing."""

ANSWER_SECONDS = 5.0
"""A connection is dead if it gives no answer for this long after it should."""

MOST_ENTRIES = 16
"""Entries that one answer has at most, of some 16 KiB each."""

BEGINNING = "0-0/0"

T = TypeVar("T")
_CURSOR = re.compile(r"\d{1,20}-\d{1,20}/\d{1,20}")
_decode = msgspec.json.Decoder(list[Any]).decode

Entries = Sequence[tuple[bytes, Mapping[bytes, bytes]]]
"""Entries of a log or an output, as redis-py has them."""

Read = Callable[[Any, int], Sequence[T]]
"""Makes what a watcher gets of a decoded piece and its attempt: one, or none."""


class InvalidCursor(UsageError, ValueError):
    """A position in a job's log or output has another form."""


class Logs(list[Line]):
    """The lines that are kept of a job's log; `dropped` earlier ones are not kept."""

    dropped: int = 0


class _Answer(NamedTuple):
    """What one look found: entries as ids and fields, and the job's status, or "" if it is gone."""

    entries: Entries
    status: str

    @property
    def is_last(self) -> bool:
        """Whether nothing comes after these entries."""
        is_over = not self.status or self.status in wire.ENDED
        return is_over and len(self.entries) < MOST_ENTRIES


class Watch(Generic[T]):
    """What the job `id` says, from the beginning or a `cursor` on, until it has ended.

    Iterate over it in a thread, or with `async for` in a coroutine; it has one connection of its own, which
    is closed at the end. While Redis is away it waits, and goes on where it was. `dropped` counts what the
    watcher lacks, since only the latest is kept, and `cursor` is where another watcher may go on.

    >>> for chunk in handle.output():  # doctest: +SKIP
    ...     print(chunk, end="", flush=True)
    """

    def __init__(self, client: Redis, id: str, key: str, read: Read[T], cursor: str = BEGINNING) -> None:
        if not _CURSOR.fullmatch(cursor):
            raise InvalidCursor(f"{cursor!r:.100} is not a cursor: use the `cursor` of a watch, or omit it")
        self.dropped = 0
        """How many lines or chunks were gone before they could be read."""
        self._client = client
        self._id = id
        self._key = key
        self._read = read
        self._entry, _, seen = cursor.partition("/")
        self._seen = int(seen)

    @property
    def cursor(self) -> str:
        """The position behind the last line or chunk that was read."""
        return f"{self._entry}/{self._seen}"

    def __iter__(self) -> Iterator[T]:
        """Yield what the job says. Raises `NoSuchJob`, and redis-py's errors if Redis is away at first."""
        connection, backoff = _Connection(self._client, self._id, self._key), BackOff()
        with contextlib.closing(connection):
            while True:
                try:
                    connection.ask(self._entry)
                    answer = connection.answer()
                    backoff.reset()
                except REDIS_ERRORS as error:
                    connection.refuse(error)
                    time.sleep(backoff.next())
                    continue
                yield from self.taken(answer.entries)
                if answer.is_last:
                    return

    async def __aiter__(self) -> AsyncIterator[T]:
        """Yield what the job says; no thread waits meanwhile."""
        import asyncio  # noqa: PLC0415  loaded already where there are coroutines, and slow to load

        connection, backoff = _Connection(self._client, self._id, self._key), BackOff()
        with contextlib.closing(connection):
            while True:
                try:
                    await in_thread(connection.ask, self._entry)
                    await _readable(connection.fileno(), BLOCK_SECONDS + ANSWER_SECONDS)
                    answer = await in_thread(connection.answer)
                    backoff.reset()
                except REDIS_ERRORS as error:
                    connection.refuse(error)
                    await asyncio.sleep(backoff.next())
                    continue
                for each in self.taken(answer.entries):
                    yield each
                if answer.is_last:
                    return

    def kept(self) -> Iterator[T]:
        """Yield what is kept now, in one round trip. Raises `NoSuchJob`."""
        with self._client.pipeline(transaction=False) as pipeline:
            pipeline.hget(keys.job_key(self._id), "status")
            pipeline.xrange(self._key, f"({self._entry}")
            try:
                status, entries = pipeline.execute()
            except ResponseError as error:
                raise _unreadable(self._id, error) from None
        if status is None:
            raise no_such_job(self._id)
        yield from self.taken(entries)

    @property
    def entry(self) -> str:
        """The entry behind which to read, for somebody who reads for many watchers at once."""
        return self._entry

    def taken(self, entries: Entries) -> Iterator[T]:
        """Yield what is new in `entries` that somebody else has read behind `entry`."""
        for id, fields in entries:
            entry = as_text(id)
            last = int(entry.rpartition("-")[2])
            try:
                pieces, attempt = _decode(fields[b"said"]), int(fields[b"attempt"])
            except (KeyError, ValueError, *UNREADABLE):  # somebody else wrote it
                pieces, attempt = [], 0
            first = max(last - len(pieces), 0)
            self.dropped += max(first - self._seen, 0)
            for number, piece in enumerate(pieces, first + 1):
                if number > self._seen:
                    self._seen = number
                    yield from self._read(piece, attempt)
            self._entry, self._seen = entry, last


class _Connection:
    """A connection of its own on which a watcher waits; `ask` and `answer` take turns."""

    def __init__(self, client: Redis, id: str, key: str) -> None:
        self._pool = client.connection_pool
        self._id = id
        self._key = key
        self._connection: Any = None
        self._has_answered = False

    def ask(self, after: str) -> None:
        """Ask what comes after an entry, in a moment; connect before if need be."""
        if self._connection is None:
            # Not from the pool, whose connections are for short calls.
            self._connection = self._pool.connection_class(**self._pool.connection_kwargs)
            self._connection.connect()
        milliseconds = int(1000 * BLOCK_SECONDS)
        # The status before the entries, so that an end that it tells comes after all that was said.
        commands = [
            ("XREAD", "COUNT", 1, "BLOCK", milliseconds, "STREAMS", self._key, after),
            ("HGET", keys.job_key(self._id), "status"),
            ("XRANGE", self._key, f"({after}", "+", "COUNT", MOST_ENTRIES),
        ]
        self._connection.send_packed_command(self._connection.pack_commands(commands))

    def fileno(self) -> int:
        """The descriptor that is readable once there is an answer."""
        return int(self._connection._sock.fileno())

    def answer(self) -> _Answer:
        """The answer to `ask`. Raises `NoSuchJob`, and redis-py's errors."""
        replies = [self._reply() for _ in range(3)]
        for each in replies:
            if isinstance(each, ResponseError):
                if is_transient(each):
                    raise each
                raise _unreadable(self._id, each)
        status, entries = replies[1:]
        if status is None and not self._has_answered:
            raise no_such_job(self._id)
        self._has_answered = True
        return _Answer(
            [(id, dict(zip(fields[::2], fields[1::2], strict=False))) for id, fields in entries],
            as_text(status or b""),
        )

    def refuse(self, error: Exception) -> None:
        """Close a connection that failed; raise the error unless a later try may succeed."""
        self.close()
        if not self._has_answered or not is_transient(error):
            raise error

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(*REDIS_ERRORS):
                connection.disconnect()

    def _reply(self) -> Any:
        try:
            return self._connection.read_response()
        except ResponseError as error:
            return error


async def _readable(descriptor: int, seconds: float) -> None:
    """Return when the descriptor is readable. Raises `TimeoutError`."""
    import asyncio  # noqa: PLC0415  loaded already where there are coroutines, and slow to load

    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        await asyncio.wait_for(ready.wait(), seconds)
    finally:
        loop.remove_reader(descriptor)


def logs(client: Redis, id: str, level: str = "debug") -> Logs:
    """The lines that are kept of the job's log, from `level` on. Raises `NoSuchJob` and `UnknownLevel`.

    >>> [line.text for line in logs(client, "2a9f", "warning")]  # doctest: +SKIP
    ['the disk is nearly full']
    """
    watch = follow_logs(client, id, level)
    found = Logs(watch.kept())
    found.dropped = watch.dropped
    return found


def follow_logs(client: Redis, id: str, level: str = "debug", cursor: str = BEGINNING) -> Watch[Line]:
    """A watch of the lines of the job's log, from `level` on. Raises `UnknownLevel` and `InvalidCursor`."""
    return Watch(client, id, keys.log_key(id), lines_from(level), cursor)


def lines_from(level: str) -> Read[Line]:
    """What makes lines of what is kept, from `level` on. Raises `UnknownLevel`."""
    least = said.level_number(level)

    def read(piece: Any, attempt: int) -> Sequence[Line]:
        match piece:
            case [int() | float() as at, int() as number, str() as text, *rest]:
                fields = rest[0] if rest and isinstance(rest[0], dict) else {}
                found = Line(float(at), said.level_name(number), text, fields, attempt)
                return [found] if said.LEVELS[found.level] >= least else ()
        return ()

    return read


def output(client: Redis, id: str, cursor: str = BEGINNING) -> Watch[Any]:
    """A watch of the chunks of the job's output. Raises `InvalidCursor`."""
    return Watch(client, id, keys.output_key(id), lambda piece, _: [piece], cursor)


def _unreadable(id: str, error: ResponseError) -> NoSuchJob:
    if "WRONGTYPE" not in str(error):
        raise error  # the server is busy or refuses: the job may well be there
    return NoSuchJob(f"the logs and output of job {id} can't be read: {error}")
