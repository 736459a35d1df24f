"""Batches: up to thousands of jobs under one id, counted together, with callbacks when all have ended."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, NamedTuple, cast

from redis import Redis

from packmule.coordination.redis.replies import as_text, pipelined
from packmule.coordination.redis.scripts import Script
from packmule.errors import UsageError
from packmule.jobs import batch_state, current, keys, reader, wire
from packmule.jobs.batch_state import NoSuchBatch, State, no_such_batch
from packmule.jobs.client import Client
from packmule.jobs.cluster import send_command
from packmule.jobs.job import Prepared
from packmule.jobs.options import InvalidOption
from packmule.jobs.spans import LONGEST_SPAN, Span, in_seconds
from packmule.units import given_span

KEEP = 7 * 86_400.0
"""Seconds that an ended batch is kept."""

LONGEST_NAME = 1000
"""Characters of a batch's name that are kept."""

JOBS_A_TRIP = 100
"""So many jobs can be canceled in one call that occupies the server for a few milliseconds."""

CANCEL_SECONDS = 5.0
"""How many seconds a cancel waits for jobs that run, or that workers are about to start."""

STOP_INTERVAL = 1.0
"""Seconds after which running jobs are told again to stop: a command may be lost."""

NESTED = "batch:"
"""The prefix of the id of a batch that counts as a job of another batch."""

_change = Script("jobs", "change_batch")
_cancel = Script("jobs", "cancel_in_batch")


class InvalidKeep(UsageError, ValueError):
    """The time for which a batch is to be kept after its end is out of range."""


class Settings(NamedTuple):
    """What a batch is made with; `Batch.create` explains it."""

    name: str
    on_complete: Prepared | None
    on_success: Prepared | None
    collect: bool
    keep: Span

    def written(self, chosen: str | None = None) -> tuple[list[str], list[tuple[str, Prepared]]]:
        """Its fields, and callbacks by ids, maybe `chosen` ones. Raises `InvalidKeep` and `InvalidOption`."""
        keep = in_seconds(self.keep, "keep")
        if not 1 <= keep <= LONGEST_SPAN:
            raise InvalidKeep(f"keep={self.keep!r}: give a span from 1 s to a hundred years")
        fields = ["name", self.name[:LONGEST_NAME], "keep", f"{keep:.0f}"]
        fields += ("collect", "1") if self.collect else ()
        callbacks = []
        for field, prepared in (("on_complete", self.on_complete), ("on_success", self.on_success)):
            if not (prepared is None or isinstance(prepared, Prepared)):
                raise InvalidOption(f"{field}={prepared!r}: give a prepared call, such as report.prepare(42)")
            if prepared is not None:
                callbacks.append((f"{chosen}-{field}" if chosen else keys.new_job_id(), prepared))
                fields += field, callbacks[-1][0]
        return fields, callbacks


class Result(NamedTuple):
    """The outcome of one job of a batch: the `value` that it returned, or the `error` that ended it."""

    job: str
    value: Any
    error: str | None


class Batch:
    """The batch `id` on `client`'s server.

    The end of a `with` block seals it: until then it neither ends nor calls back, so that all of its jobs can
    be enqueued first. If the block raises, the batch is canceled. Its running jobs may add others.

    >>> with Batch.create("import 42", on_complete=report.prepare(42)) as batch:  # doctest: +SKIP
    ...     resize.options(batch=batch.id).enqueue_many([("a.jpg",), ("b.jpg",)])
    >>> batch.wait().counts.failed  # doctest: +SKIP
    0
    """

    def __init__(self, client: Client | Redis, id: str) -> None:
        self.redis = client.redis if isinstance(client, Client) else client
        self.id = id
        self._key = keys.batch_key(id)

    @classmethod
    def create(
        cls,
        name: str = "",
        *,
        on_complete: Prepared | None = None,
        on_success: Prepared | None = None,
        collect: bool = False,
        parent: Batch | None = None,
        keep: Span = KEEP,
        client: Client | Redis | None = None,
    ) -> Batch:
        """Create a batch, with the process's default client unless another is given.

        When all of its jobs have ended, `on_complete` is enqueued once, and `on_success` too if all of them
        finished. With `collect` the batch keeps what each job returned, up to 64 KiB each, for `results`. In
        its `parent` the batch counts as one job, which fails unless all of its own jobs finish; batches nest
        no deeper. The batch is kept for `keep` seconds after its end. Raises `BatchClosed` if the parent
        takes no more jobs, `InvalidKeep`, and what `Client.enqueue` raises.
        """
        if not (parent is None or isinstance(parent, Batch)):
            raise InvalidOption(f"parent={parent!r}: give a Batch")
        client = Client(client) if isinstance(client, Redis) else client or Client.default()
        id = keys.new_job_id()
        settings = Settings(name, on_complete, on_success, collect, keep)
        client.create_batch(id, parent.id if parent else None, *settings.written())
        return cls(client, id)

    @classmethod
    def current(cls) -> Batch | None:
        """The batch that the running job is in, or is the callback of; None without one."""
        id = current.batch_id()
        return cls(Client.default(), id) if id else None

    def __enter__(self) -> Batch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.seal()
        else:
            self.cancel()

    def state(self) -> State:
        """The batch as it is now, in one round trip. Raises `NoSuchBatch`."""
        return batch_state.read(self.redis, self.id)

    def seal(self) -> bool:
        """Let the batch end once its jobs have; False if it was already sealed. Raises `NoSuchBatch`."""
        return self._changed("seal")

    def pause(self) -> bool:
        """Keep workers from taking its jobs and those of nested batches; False if it was already paused."""
        return self._all_changed("pause")

    def resume(self) -> bool:
        """Return its jobs to the front of their queues; False if it was not paused."""
        return self._all_changed("resume")

    def cancel(self) -> None:
        """Cancel its waiting jobs, stop its running ones, and take no more. Raises `NoSuchBatch`.

        If this is interrupted, call it again: until then none of its jobs starts, except those that workers
        were about to start. It waits a few seconds for jobs that run: one that fails or loses its worker
        before it stops is canceled, and does not run again. A job of the batch doesn't wait, nor does a
        call on an event loop, which would keep the jobs there from stopping: use `asyncio.to_thread`.
        """
        self._changed("stop")
        batches = [*self._nested(), self]
        for each in batches[:-1]:
            with suppress(NoSuchBatch):
                each._changed("stop")
        waits = current.batch_id() not in [each.id for each in batches] and not _is_on_event_loop()
        now = stop_at = time.monotonic()
        deadline = now + CANCEL_SECONDS
        while True:
            is_stopping = now >= stop_at
            held = sum([each._cancel_all(is_stopping, waits) for each in batches])
            if not held or now >= deadline:
                break
            stop_at = now + STOP_INTERVAL if is_stopping else stop_at
            time.sleep(reader.POLL_INTERVAL)  # workers hold the rest: they start, end, or come back
            now = time.monotonic()
        for each in batches:
            with suppress(NoSuchBatch):
                each._changed("resume")  # it holds no more jobs

    def _cancel_all(self, is_stopping: bool = True, waits: bool = True) -> int:
        """Cancel all jobs that can be, and stop those that run; the number of jobs that workers hold.

        Jobs that run count only if the caller `waits` for them.
        """
        held = 0
        claimed = _claimed(self.redis)
        for ids in self._jobs("p"):
            jobs = sorted((id for id in ids if not id.startswith(NESTED)), key=claimed.__contains__)
            unclaimed = sum(id not in claimed for id in jobs)
            args = [self.id, wire.time_text(time.time()), unclaimed, *jobs]
            running, count = _cancel(self.redis, [self._key], args)
            held += count + (len(running) if waits else 0)
            for id in map(as_text, running if is_stopping else ()):
                worker = as_text(self.redis.hget(keys.job_key(id), "worker_name") or b"")
                send_command(self.redis, worker, "stop-job", job_id=id)
        return held

    def retry(self) -> int:
        """Run its failed jobs again, and return how many do. Those that can't run now are skipped.

        A batch that has ended runs again. If this is interrupted, call it again.
        """
        from packmule.jobs import control  # noqa: PLC0415  it loads RQ, which enqueueing does without

        self.state()
        count = 0
        for page in list(self._jobs("f")):
            ids = [id for id in page if not id.startswith(NESTED)]
            count += sum(error is None for error in control.retry_each(self.redis, ids))
        return count

    def wait(self, timeout: Span | None = None) -> State:
        """Wait until it has ended. Raises `NoSuchBatch`, and `TimeoutError` after `timeout` seconds."""
        seconds = math.inf if timeout is None else in_seconds(timeout, "timeout")
        deadline = time.monotonic() + seconds
        while True:
            state = self.state()
            if state.ended is not None:
                return state
            if time.monotonic() > deadline:
                why = f"jobs pending: {state.counts.pending}" if state.is_sealed else "it is not sealed"
                raise TimeoutError(f"batch {self.id} has not ended after {given_span(seconds)}: {why}")
            time.sleep(reader.POLL_INTERVAL)

    def failed(self) -> Iterator[str]:
        """The ids of its failed jobs, in no order; a nested batch as `batch:<id>`."""
        for ids in self._jobs("f"):
            yield from ids

    def results(self) -> Iterator[Result]:
        """The outcomes of its jobs, in no order, each once; only for a batch that collects."""
        seen: set[str] = set()
        for id, value in self.redis.hscan_iter(f"{self._key}:results", count=JOBS_A_TRIP):
            job = as_text(id)
            if job not in seen:
                seen.add(job)
                yield Result(job, *reader.collected(as_text(value)))

    def _jobs(self, state: str) -> Iterator[list[str]]:
        found = []
        for id, at in self.redis.hscan_iter(f"{self._key}:jobs", count=JOBS_A_TRIP):
            if as_text(at) == state:
                found.append(as_text(id))
            if len(found) == JOBS_A_TRIP:
                yield found
                found = []
        if found:
            yield found

    def _nested(self) -> list[Batch]:
        """The batches in it that have not ended."""
        pending = (id for ids in self._jobs("p") for id in ids)
        return [Batch(self.redis, id.removeprefix(NESTED)) for id in pending if id.startswith(NESTED)]

    def _all_changed(self, change: str) -> bool:
        changed = self._changed(change)
        for each in self._nested():
            each._changed(change)
        return changed

    def _changed(self, change: str) -> bool:
        key_names, verdict = [self._key, keys.PAUSED_BATCHES], "more"
        has_changed = False
        while verdict == "more":
            args = [self.id, change, wire.time_text(time.time())]
            verdict = as_text(_change(self.redis, key_names, args))
            has_changed = has_changed or verdict in ("changed", "more")
        if not verdict:
            raise no_such_batch(self.id)
        return has_changed


def _is_on_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _claimed(client: Redis) -> set[str]:
    """The ids of all jobs that workers have claimed."""
    workers = cast(list[bytes], client.zrange(keys.LEASES, 0, -1))
    claims = pipelined(client, [("HKEYS", keys.claims_key(as_text(each))) for each in workers], ())
    return {as_text(id) for found in claims for id in found}
