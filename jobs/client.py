"""The client: enqueues calls on one server, one round trip for hundreds, and reaches the jobs there."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec

from redis import Redis

from packmule import hooks
from packmule.config import Settings
from packmule.coordination.redis.connection import checked, connect
from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.errors import UsageError, meant
from packmule.jobs import delivery, entry, reader, watch, wire
from packmule.jobs.entry import Entry, EntryWriter
from packmule.jobs.handle import JobHandle, JobHandles, sent_in_thread
from packmule.jobs.job_type import InvalidCall, InvalidJob, JobType
from packmule.jobs.options import InvalidOption, Options
from packmule.jobs.said import Line
from packmule.jobs.sending import sending
from packmule.jobs.spans import Span

if TYPE_CHECKING:
    from packmule.jobs import search
    from packmule.jobs.job import Calls, JobCall, JobFunction, Prepared
    from packmule.jobs.job_filter import JobFilter

P = ParamSpec("P")


class UnknownQueue(UsageError, ValueError):
    """A queue is not among the settings' queues, where no worker would find the job."""


class Client:
    """Enqueues jobs on one server, and reads and controls them.

    `server` is a `redis.Redis`, the `Settings` that name a server, or nothing for the settings of the
    environment; with settings, the client connects when it is first used. `queues` are the names that it may
    enqueue to (by default those of the settings, or any on a `redis.Redis`), and `max_bytes` limits the size
    of a job's arguments as JSON. Threads may share a client.

    While the server can't be reached, calls raise `Unavailable`. A `redis.Redis` of your own raises
    redis-py's errors instead, except when it enqueues.

    `report.enqueue(...)` uses the process's default client, `Client.default()`: the environment's, unless
    another was made the default. Others are used by name:

    >>> with Client(Settings(redis_url="redis://reports.internal:6379/0")) as reports:  # doctest: +SKIP
    ...     handle = reports.enqueue(report, "2026-11")
    ...     reports.enqueue(report.options(queue="low"), "2026-12")
    ...     handle.result(timeout=60)
    """

    stays_default: ClassVar[bool] = False
    """Whether it stays the default client, as in a test, when other code makes a client the default."""
    _default: ClassVar[Client | None] = None
    _choosing: ClassVar[threading.Lock] = threading.Lock()

    def __init__(
        self,
        server: Redis | Settings | None = None,
        queues: Sequence[str] | None = None,
        max_bytes: int | None = None,
    ) -> None:
        self.settings: Settings | None = None
        self._connecting = threading.Lock()
        if server is None or isinstance(server, Settings):
            self.settings = server or Settings.from_env()
            queues = self.settings.queues if queues is None else queues
            max_bytes = self.settings.max_job_bytes if max_bytes is None else max_bytes
            hooks.load(self.settings.hooks)
        else:
            self.redis = checked(server)
        self.queues = queues
        most = Settings().max_job_bytes if max_bytes is None else max_bytes
        self.max_bytes = min(most, wire.MAX_PAYLOAD_BYTES)

    @cached_property
    def redis(self) -> Redis:
        """The connection: the one that was given, or one to the settings' server, made when first used."""
        with self._connecting:
            made: Redis | None = self.__dict__.get("redis")
            if made is None:
                settings = self.settings or Settings.from_env()
                made = connect(settings.redis_url, settings.data_dir, allow_eviction=settings.allow_eviction)
                self.__dict__["redis"] = made  # before another thread that waits for the lock looks
                atexit.register(self.close)
            return made

    @classmethod
    def default(cls) -> Client:
        """The client that `.enqueue(...)` uses in this process. Raises `SettingsError`."""
        if Client._default is None:
            with Client._choosing:
                Client._default = Client._default or Client()
        return Client._default

    def make_default(self) -> Client:
        """Use this client for `.enqueue(...)` in this process, unless a test keeps its jobs; return it."""
        if Client._default is None or not Client._default.stays_default:
            Client._default = self
        return self

    def close(self) -> None:
        """Close the connection if this client made it, and stop an embedded server that nobody else uses."""
        made = self.__dict__.pop("redis", None) if self.settings else None
        if made is None or self.settings is None:
            return
        atexit.unregister(self.close)
        if self.settings.redis_url is None:
            EmbeddedServer(self.settings.data_dir).stop_if_unused(made)
        made.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def enqueue(
        self, function: JobFunction[P, Any] | JobCall[P], /, *args: P.args, **kwargs: P.kwargs
    ) -> JobHandle:
        """Enqueue one job, a call of `function`, which may carry options, and return its handle.

        If an equal unique job is already pending, the handle is that job's. Enqueueing an id that exists
        changes nothing, so a call with a `job_id` that failed can be made again. Raises `InvalidCall`,
        `JobTooLarge`, `UnknownQueue`, `InvalidOption`, `NoSuchBatch`, `NoSuchJob`, `BatchClosed` or
        `ServerFull`.
        """
        prepared = _job(function).prepare(*args, **kwargs)
        return self.send(prepared.job, [prepared.call], prepared.options)[0]

    def enqueue_many(self, function: JobFunction[..., Any] | JobCall[...], calls: Calls) -> JobHandles:
        """Enqueue one job per call, hundreds per round trip, and return their handles in order.

        Each call is a mapping of argument names, or a sequence of positional arguments. None is sent unless
        all are valid. Of equal unique jobs in one call the first keeps its place, with `at_front` the last.
        """
        prepared = _job(function).prepare()
        return self.send(prepared.job, [entry.pair(call) for call in calls], prepared.options)

    async def aenqueue(
        self, function: JobFunction[P, Any] | JobCall[P], /, *args: P.args, **kwargs: P.kwargs
    ) -> JobHandle:
        """Like `enqueue`, for coroutines. If cancelled before its command is sent, it enqueues nothing."""
        return await sent_in_thread(self.enqueue, function, *args, **kwargs)

    async def aenqueue_many(self, function: JobFunction[..., Any] | JobCall[...], calls: Calls) -> JobHandles:
        """Like `enqueue_many`, for coroutines. Once it is cancelled, no further round trip enqueues."""
        return await sent_in_thread(self.enqueue_many, function, calls)

    def job(self, id: str) -> JobHandle:
        """The handle of the job called `id`, whether it exists or not."""
        return JobHandle(id, self)

    def read(self, id: str) -> reader.JobInfo:
        """The job called `id`. Raises `NoSuchJob`."""
        return reader.read(self.redis, id)

    def search(
        self, wanted: JobFilter | None = None, limit: int = 50, cursor: str | None = None
    ) -> search.Page:
        """A page of the jobs that match `wanted`, all by default: newest first, from the page's `cursor` on.

        Raises `InvalidPage`.

        >>> client.search(JobFilter(name="report", status="failed")).jobs  # doctest: +SKIP
        [JobInfo(id='2a9f', ...), ...]
        """
        from packmule.jobs import search  # noqa: PLC0415  an enqueue does without

        return search.search(self.redis, wanted, limit, cursor, self.queues or ())

    def wait(self, id: str, timeout: Span | None = None) -> reader.JobInfo:
        """The job called `id` once it has ended. Raises `NoSuchJob` and `TimeoutError`."""
        return reader.wait(self.redis, id, timeout)

    def logs(self, id: str, level: str = "debug") -> watch.Logs:
        """The lines that are kept of the job's log. Raises `NoSuchJob` and `UnknownLevel`."""
        return watch.logs(self.redis, id, level)

    def follow_logs(self, id: str, level: str = "debug", cursor: str = watch.BEGINNING) -> watch.Watch[Line]:
        """A watch of the lines of the job's log. Raises `UnknownLevel` and `InvalidCursor`."""
        return watch.follow_logs(self.redis, id, level, cursor)

    def output(self, id: str, cursor: str = watch.BEGINNING) -> watch.Watch[Any]:
        """A watch of the chunks of the job's output. Raises `InvalidCursor`."""
        return watch.output(self.redis, id, cursor)

    def cancel(self, id: str, timeout: Span = 5.0) -> str:
        """Cancel the job called `id` and return its status. Raises `NoSuchJob` and `NotCanceled`."""
        from packmule.jobs import control  # noqa: PLC0415  it loads RQ, which an enqueue does without

        return control.cancel(self.redis, id, timeout)

    def retry(self, id: str) -> None:
        """Run the failed, stopped or canceled job called `id` again, without using its own `retries`.

        It goes to the end of its queue at once.
        Raises `NoSuchJob` and `NotRetried`.
        """
        from packmule.jobs import control  # noqa: PLC0415

        control.retry(self.redis, id)

    def signal(self, id: str, name: str, data: Any = None) -> str:
        """Send the job called `id` a signal; returns `woken` if it waited for that, or `kept`.

        Raises `NoSuchJob`, `NotSignaled`, `InvalidSignal` and `InvalidStep`.
        """
        from packmule.jobs import signaling  # noqa: PLC0415

        return signaling.signal(self.redis, id, name, data)

    def send(self, job: JobType, calls: Sequence[entry.Call], options: Options | None = None) -> JobHandles:
        """Enqueue one job of type `job` for each of `calls`: what `enqueue` and `enqueue_many` come down to.

        A call is its positional and its named arguments.
        """
        options = options.over(job.options) if options else job.options
        with sending(job.name, options.queue, len(calls)) as sent:
            entries = self.entries(job, calls, options, sent.trace)
            # At the front each goes before the one sent earlier, so the first call's is sent last.
            at_front = options.at_front and not options.is_scheduled
            after = options.parents if options.after is not None else ()
            ordered = entries[::-1] if at_front else entries
            send = partial(delivery.deliver, self.redis, ordered, bool(options.durable), after)
            holders: dict[str, str] = {} if hooks.postponed(send) else send()
            sent.ids = handles = JobHandles.of([each.id for each in entries], holders, self)
        return handles

    def entries(
        self, job: JobType, calls: Sequence[entry.Call], options: Options, trace: str = ""
    ) -> list[Entry]:
        """Check `calls` and write each for the script; `options` are complete."""
        if options.job_id is not None and len(calls) > 1:
            raise InvalidCall(f"{job.name}: one job_id can't name {len(calls)} jobs")
        writer = EntryWriter(job, options, self.max_bytes, trace)
        if self.queues is not None:
            known_queue(writer.run.queue, self.queues)
        return writer.write_all(calls)

    def written(self, job: JobType, call: entry.Call, options: Options) -> tuple[bytes, bytes]:
        """One call as `enqueue.lua` takes it, its two arguments, for a script that has a condition in front.

        Raises what `enqueue` does.
        """
        if options.over(job.options).parents:
            raise InvalidOption(f"{job.name} waits for its time here, not for other jobs: omit after")
        (written,) = self.entries(job, [call], options.over(job.options))
        runs, payload = entry.arguments([written])
        return runs, payload

    def create_batch(
        self, batch: str, parent: str | None, fields: Sequence[str], callbacks: Sequence[tuple[str, Prepared]]
    ) -> None:
        """Make the batch called `batch`, a hash of `fields` (names and values in turn), in one trip.

        Its `callbacks` are stored under their ids, and enqueued when it ends. Raises what `enqueue` does.
        """
        entries = []
        for id, (job, call, options) in callbacks:
            complete = options.over(job.options)
            if complete.is_scheduled or complete.is_unique or complete.parents:
                raise InvalidOption(
                    f"{job.name} is the callback of a batch: omit delay, at, after and unique"
                )
            (written,) = self.entries(job, [call], replace(complete, job_id=id, batch=None))
            entries.append(entry.called_back(written, batch))
        delivery.create_batch(self.redis, batch, parent, fields, entries)


def known_queue(name: str, queues: Sequence[str]) -> str:
    """`name`, if it is one of `queues`. Raises `UnknownQueue`."""
    if name not in queues:
        near = f"; did you mean {near}?" if (near := meant(name, queues)) else ""
        known = ", ".join(queues)
        raise UnknownQueue(f"no queue is called {name!r}: there are {known}{near} (see PACKMULE_QUEUES)")
    return name


def _job(function: JobFunction[P, Any] | JobCall[P]) -> JobFunction[P, Any] | JobCall[P]:
    """`function`, if it is a job. Raises `InvalidJob`."""
    if not hasattr(function, "prepare"):
        raise InvalidJob(f"{function!r} is not a job: give a function that is decorated with @job")
    return function
