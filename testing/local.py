"""A client without a server: it keeps jobs in this process, and performs them there as a worker would."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from datetime import timedelta
from inspect import Parameter
from typing import Any, Literal, NoReturn

import msgspec
from redis import Redis

from packmule.config import Settings
from packmule.errors import UsageError
from packmule.jobs import reader, signaling, wire
from packmule.jobs.arguments import converted
from packmule.jobs.client import Client
from packmule.jobs.control import NotRetried
from packmule.jobs.entry import Call as Arguments
from packmule.jobs.entry import Entry
from packmule.jobs.handle import JobHandle, JobHandles, JobRaised
from packmule.jobs.job import JobCall, JobFunction
from packmule.jobs.job_type import InvalidCall, JobType
from packmule.jobs.options import DEFAULT_QUEUE, OPTION_NAMES, Options
from packmule.jobs.said import Line
from packmule.jobs.spans import Span, in_seconds
from packmule.jobs.watch import BEGINNING, Logs, Watch, lines_from
from packmule.testing.local_job import LocalJob, LocalPerformer, LocalWatch


class NoServer(UsageError):
    """A test asked for something that only a server has."""


class NotDrained(UsageError):
    """A test waited for a job that nothing performs before `drain()`."""


class LocalClient(Client):
    """Keeps the jobs that it is given; `drain()` performs them, or each enqueue does if `is_inline`.

    Delays and sleeps are not waited for, and timeouts, `expires`, `isolate` and limits of concurrency and
    rate are not enforced. A job that waits for a signal goes on once that is sent, or by `time_out`. With
    `raises` the error that ends a job is raised where it was performed.
    """

    stays_default = True
    """An application that makes a client of its own when it starts would take the test's jobs to a server."""

    def __init__(self, *, is_inline: bool = False, raises: bool = True) -> None:
        settings = Settings.from_env()
        super().__init__(settings)
        self.is_inline = is_inline
        self.raises = raises
        self.jobs: dict[str, LocalJob] = {}
        self._waiting: deque[str] = deque()
        self._holders: dict[str, str] = {}
        self._performer = LocalPerformer(settings.max_result_bytes)

    @property
    def redis(self) -> Redis:
        """There is no connection: raises `NoServer`."""
        raise NoServer("jobs are kept without a server here: use the fixture packmule_server for this test")

    def create_batch(self, *_: object) -> NoReturn:
        """There are no batches: raises `NoServer`."""
        raise NoServer("a batch needs a server: use the fixture packmule_server for this test")

    def close(self) -> None:
        """Forget all jobs."""
        self.jobs.clear()
        self._waiting.clear()
        self._holders.clear()

    def send(self, job: JobType, calls: Sequence[Arguments], options: Options | None = None) -> JobHandles:
        """Check the calls as any client does, and keep them; perform them if this client is inline."""
        options = options.over(job.options) if options else job.options
        handles, held, new = JobHandles(), set(), []
        for position, entry in enumerate(self.entries(job, calls, options)):
            holder = self._holder(entry)
            if holder is not None:
                held.add(position)
            elif entry.id not in self.jobs:
                status = "scheduled" if options.is_scheduled else "queued"
                self.jobs[entry.id] = LocalJob(job, options, entry, status, options.retries or 0)
                self._waiting.append(entry.id)
                new.append(entry.id)
            handles.append(JobHandle(holder or entry.id, self))
        handles.held = frozenset(held)
        if self.is_inline:
            # No others: they are performed by the enqueue that made them, in another thread or around this.
            for id in new:
                self._perform(id)
        return handles

    def drain(self) -> JobHandles:
        """Perform all jobs that wait, and those that they enqueue, in order; the handles of these jobs."""
        performed = JobHandles()
        while self._waiting:
            performed.append(JobHandle(self._waiting[0], self))
            self._perform(self._waiting[0])
        return performed

    def assert_enqueued(
        self, function: JobFunction[..., Any] | JobCall[...], /, *args: Any, **named: Any
    ) -> JobHandle:
        """Check that a call of `function` was enqueued with these arguments and options; its handle.

        Arguments that are left out may have any value, and so may options. A name that is both an argument's
        and an option's is the argument's. Raises `AssertionError` with what was enqueued instead.
        """
        found = self._found(function, args, named)
        if not found:
            raise AssertionError(f"{_wanted(function, args, named)} was not enqueued; {self._enqueued()}")
        return JobHandle(found[0], self)

    def refute_enqueued(
        self, function: JobFunction[..., Any] | JobCall[...], /, *args: Any, **named: Any
    ) -> None:
        """Check that no such call was enqueued (see `assert_enqueued`). Raises `AssertionError`."""
        if found := self._found(function, args, named):
            raise AssertionError(f"{_wanted(function, args, named)} was enqueued: {self.jobs[found[0]]}")

    def read(self, id: str) -> reader.JobInfo:
        """The job called `id`. Raises `NoSuchJob`."""
        return self._job(id).info()

    def wait(self, id: str, timeout: Span | None = None) -> reader.JobInfo:
        """The job called `id`, which must have ended. Raises `NoSuchJob` and `NotDrained`."""
        job = self.read(id)
        if job.waits:
            raise NotDrained(f"job {id} ({job.name}) waits for a signal: send it, or time_out the job")
        if not job.has_ended:
            raise NotDrained(f"job {id} ({job.name}) is {job.status} until drain() performs it")
        return job

    def logs(self, id: str, level: str = "debug") -> Logs:
        """What the job called `id` said by `current.log`. Raises `NoSuchJob` and `UnknownLevel`."""
        read, job = lines_from(level), self._job(id)
        return Logs(each for line, attempt in job.lines for each in read(msgspec.json.decode(line), attempt))

    def follow_logs(self, id: str, level: str = "debug", cursor: str = BEGINNING) -> Watch[Line]:
        """What `logs` returns; `cursor` makes no difference."""
        return LocalWatch(self.logs(id, level))

    def output(self, id: str, cursor: str = BEGINNING) -> Watch[Any]:
        """What the job called `id` emitted; `cursor` makes no difference. Raises `NoSuchJob`."""
        return LocalWatch([msgspec.json.decode(chunk) for chunk in self._job(id).chunks])

    def cancel(self, id: str, timeout: Span = 5.0) -> str:
        """Cancel the job called `id` if it waits, and return its status. Raises `NoSuchJob`."""
        job = self._job(id)
        if id in self._waiting or job.waits:
            if id in self._waiting:
                self._waiting.remove(str(id))
            job.status, job.waits = "canceled", None
        return job.status

    def retry(self, id: str) -> None:
        """Let the job called `id` run again. Raises `NoSuchJob`, and `NotRetried` unless it ended in vain."""
        job = self._job(id)
        if job.status not in ("failed", "stopped", "canceled"):
            raise NotRetried(f"job {id} is {job.status}; only failed, stopped and canceled jobs run again")
        job.status = "queued"
        self._waiting.append(str(id))
        if self.is_inline:
            self._perform(str(id))

    def signal(self, id: str, name: str, data: Any = None) -> Literal["woken", "kept"]:
        """Send the job called `id` a signal, for which it may wait. Raises what a client does."""
        job = self._job(id)
        written = signaling.written(name, data)
        if job.has_ended:
            raise signaling.has_ended(id, job.status)
        job.signals.append((name, written))
        if not job.waits or not job.end_wait(job.waits):
            return "kept"
        self._wake(id)
        return "woken"

    def time_out(self, id: str) -> None:
        """Let the job called `id`, which waits for a signal with a timeout, go on without it.

        Raises `NoSuchJob`, and `NotDrained` if it doesn't wait like that.
        """
        if not self._job(id).time_out():
            raise NotDrained(f"job {id} does not wait for a signal with a timeout: drain() first")
        self._wake(id)

    def _wake(self, id: str) -> None:
        job = self._job(id)
        job.status, job.waits = "queued", None
        self._waiting.append(str(id))
        if self.is_inline:
            self._perform(str(id))

    def _perform(self, id: str) -> None:
        """Perform the job called `id`, which waits. Raises what ended it, if it is to be raised."""
        self._waiting.remove(id)
        job = self.jobs[id]
        self._performer.perform_to_end(job)
        # KeyboardInterrupt and pytest's own exceptions are not the job's to keep.
        is_ours = job.error is None or isinstance(job.error, Exception)
        if job.status == "failed" and (self.raises or not is_ours):
            info = job.info()
            text = f"job {id} ({info.name}) failed: {info.reason}"
            raise job.error or JobRaised(text, info.error or "")

    def _job(self, id: str) -> LocalJob:
        try:
            return self.jobs[id]
        except KeyError:
            raise reader.no_such_job(id) from None

    def _holder(self, entry: Entry) -> str | None:
        """The job that holds the place of a unique one; None if the place is free, or now is `entry`'s."""
        if entry.own.uniqueness is None:
            return None
        key, rule, seconds, _ = entry.own.uniqueness
        holder = self._holders.get(key)
        if holder is not None:
            job = self.jobs[holder]
            is_recent = time.monotonic() - job.began < seconds
            if rule == "debounce" and holder in self._waiting:
                job.entry = job.entry._replace(payload=entry.payload)
                return holder
            if rule == "throttle":
                is_held = is_recent
            elif rule == "ttl":
                is_held = is_recent and job.status != "failed"
            else:
                is_held = not job.has_ended
            if is_held:
                return holder
        self._holders[key] = entry.id
        return None

    def _found(
        self, function: JobFunction[..., Any] | JobCall[...], args: tuple[Any, ...], named: dict[str, Any]
    ) -> list[str]:
        """The ids of the jobs that call `function` so."""
        wanted = function.job
        kwargs, options = _parted(wanted, named)
        wanted_options = Options(**options)
        try:
            bound = wanted.signature.bind_partial(*args, **kwargs).arguments
            typed = converted(bound, wanted.arguments)
        except (TypeError, msgspec.ValidationError) as error:
            raise InvalidCall(f"{wanted.name}: {error}") from None
        given = {name: wire.encode_argument(getattr(typed, name)) for name in bound}

        def fits(job: LocalJob) -> bool:
            if job.type.name != wanted.name:
                return False
            arguments = wanted.arguments_of(*job.call())
            return all(
                _option(job.options, name) == _option(wanted_options, name) for name in options
            ) and all(wire.encode_argument(arguments[name]) == value for name, value in given.items())

        return [id for id, job in self.jobs.items() if fits(job)]

    def _enqueued(self) -> str:
        if not self.jobs:
            return "nothing was"
        return "\n  ".join(["there are", *map(str, self.jobs.values())])


def _parted(job: JobType, named: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments and the options among `named`. Raises `InvalidCall` for a name that is neither."""
    parameters = job.signature.parameters
    takes_any = any(each.kind is Parameter.VAR_KEYWORD for each in parameters.values())
    kwargs = {
        name: value
        for name, value in named.items()
        if name in parameters or (takes_any and name not in OPTION_NAMES)
    }
    options = {name: value for name, value in named.items() if name not in kwargs}
    if unknown := options.keys() - OPTION_NAMES:
        raise InvalidCall(f"{job.name} has no argument {min(unknown)!r}, and no option is called that")
    return kwargs, options


def _option(options: Options, name: str) -> Any:
    """An option, with spans in seconds, however they were given."""
    if name == "queue":
        return options.queue or DEFAULT_QUEUE
    value = getattr(options, name)
    if isinstance(value, list | tuple) and name == "retry_intervals":
        return [in_seconds(each) for each in value]
    return in_seconds(value) if isinstance(value, timedelta) else value


def _wanted(
    function: JobFunction[..., Any] | JobCall[...], args: tuple[Any, ...], named: dict[str, Any]
) -> str:
    said = [*map(repr, args), *(f"{name}={value!r}" for name, value in named.items())]
    return f"{function.job.name}({', '.join(said)})"
