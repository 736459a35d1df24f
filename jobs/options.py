"""The options of one enqueue: which queue, when, how long, how often."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any, TypedDict

from packmule.errors import UsageError, meant
from packmule.jobs.keys import JOB_ID, queue_key, queue_name
from packmule.jobs.spans import LONGEST_SPAN, Span, UnfitSpan, in_seconds

DEFAULT_QUEUE = "default"
DEFAULT_TIMEOUT = 180.0
DEFAULT_RESULT_TTL = 500.0
DEFAULT_FAILURE_TTL = 31_536_000.0

MOST_RETRIES = 1_000_000

MOST_PARENTS = 100
"""Jobs that one can come after; a flow has more."""
MOST_PRIORITY = 100

_TYPES = {
    **dict.fromkeys(("queue", "description", "job_id", "batch"), str),
    **dict.fromkeys(("at_front", "durable"), bool),
    "at": datetime,
}
_WHOLE = (("retries", 0, MOST_RETRIES), ("priority", -MOST_PRIORITY, MOST_PRIORITY))
_NO_RULES = (None, None, None, None)
_UNIQUE_SPANS = ("unique_ttl", "debounce", "debounce_limit", "throttle")


class InvalidOption(UsageError, ValueError):
    """An option has an invalid value; nothing was enqueued."""


class JobOptions(TypedDict, total=False):
    """The options of a job: set in `@job(...)` for all its calls, in `.options(...)` for one enqueue.

    Spans are seconds, a `timedelta`, or a text such as `"5m"`. An option that is None or omitted comes from
    the decorator, then from the defaults named here.
    """

    queue: str | None
    """One of the settings' queues; `default` if none is given."""
    timeout: Span | None
    """How long the job may run, 180 s by default; RQ keeps whole seconds, rounded up."""
    result_ttl: Span | None
    """How long a finished job is kept, 500 s by default; 0 deletes it at once, -1 keeps it forever."""
    failure_ttl: Span | None
    """How long a failed job is kept, a year by default."""
    retries: int | None
    """How often a failed job runs again, 0 by default."""
    retry_intervals: Sequence[Span] | None
    """How long to wait before each retry; without it, exponential back-off with jitter."""
    description: str | None
    """What commands and pages show, the function's name by default; the first 1,000 characters are kept."""
    delay: Span | None
    """Wait this long, by Redis's clock, before the job is queued."""
    at: datetime | None
    """Wait until this instant, which has a time zone; not with `delay`."""
    expires: Span | None
    """Fail the job if it has not started this long after it could have."""
    at_front: bool | None
    """Put the job before those that wait; with a `priority`, before those of its band."""
    priority: int | None
    """A whole number from -100 to 100, 0 by default: jobs above 0 run before others of their queue.

    Jobs are in bands: 51 to 100, 1 to 50, 0, -50 to -1, and -100 to -51. Each keeps its order.
    """
    job_id: str | None
    """Up to 200 letters, digits, `_` and `-`.

    While a job of that id exists, it is not enqueued again, unless it was canceled.
    """
    unique: bool | str | None
    """Don't enqueue the job while an equal one is alive: queued, scheduled, running or to be retried.

    True compares all arguments; a text such as `"{account_id}"` names those that count. False takes back what
    the decorator says.
    """
    unique_ttl: Span | None
    """Keep equal jobs out for this long after the enqueue instead, unless the job fails; implies `unique`."""
    debounce: Span | None
    """Start after this long without an equal call; each one replaces the job that waits. Implies `unique`."""
    debounce_limit: Span | None
    """The longest wait that `debounce` may add up to."""
    throttle: Span | None
    """Keep equal jobs out for this long after the enqueue, even if the job fails; implies `unique`."""
    after: str | Sequence[str] | None
    """The ids of jobs, ours or RQ's, that must have finished before it is queued."""
    batch: str | None
    """The id of the batch in which the job counts, unless another job holds its place or id."""
    durable: bool | None
    """Return only once the server has the job on its disk, and on a replica if it has one."""


def refuse_unknown(given: Iterable[str], known: Collection[str]) -> None:
    """Raise `InvalidOption` if a name in `given` is none of `known`; the text offers the nearest of these."""
    for name in given:
        if name not in known:
            near = meant(name, known)
            way_out = f"did you mean {near}?" if near else f"there are {', '.join(known)}"
            raise InvalidOption(f"no option is called {name!r}: {way_out}")


@dataclass(frozen=True, slots=True)
class Options:
    """`JobOptions` as a value, checked when it is made: raises `InvalidOption` for what can't be meant."""

    queue: str | None = None
    timeout: Span | None = None
    result_ttl: Span | None = None
    failure_ttl: Span | None = None
    retries: int | None = None
    retry_intervals: Sequence[Span] | None = None
    description: str | None = None
    delay: Span | None = None
    at: datetime | None = None
    expires: Span | None = None
    at_front: bool | None = None
    priority: int | None = None
    job_id: str | None = None
    unique: bool | str | None = None
    unique_ttl: Span | None = None
    debounce: Span | None = None
    debounce_limit: Span | None = None
    throttle: Span | None = None
    after: str | Sequence[str] | None = None
    batch: str | None = None
    durable: bool | None = None

    def __post_init__(self) -> None:
        """Refuse what can't be meant."""
        for name, kind in _TYPES.items():
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                raise InvalidOption(f"{name}={value!r}: give a {kind.__name__}")
            if isinstance(value, str) and not _is_text(value):
                raise InvalidOption(f"{name}={value!r}: give text that UTF-8 can hold")
        for name in ("timeout", "result_ttl", "failure_ttl", "delay", "expires", *_UNIQUE_SPANS):
            if isinstance(value := getattr(self, name), str):
                object.__setattr__(self, name, _seconds(name, value))
            elif value is not None:
                _seconds(name, value)
        if self.retry_intervals is not None:
            if not isinstance(self.retry_intervals, tuple | list):
                raise InvalidOption(f"retry_intervals={self.retry_intervals!r}: give a list of spans")
            seconds = [_seconds("retry_intervals", value) for value in self.retry_intervals]
            if any(isinstance(value, str) for value in self.retry_intervals):
                object.__setattr__(self, "retry_intervals", seconds)
        for name, least, most in _WHOLE:
            _check_whole(name, getattr(self, name), least, most)
        _check_names(self)
        if self.at is not None and self.at.tzinfo is None:
            raise InvalidOption(f"at={self.at.isoformat()}: give the time zone too, such as +01:00")
        if self.at is not None and self.delay is not None:
            raise InvalidOption("give delay or at, not both")
        _check_after(self)
        _check_unique(self)
        _check_batch(self)

    @property
    def parents(self) -> tuple[str, ...]:
        """The ids of the jobs that it waits for."""
        if self.after is None:
            return ()
        return (str(self.after),) if isinstance(self.after, str) else tuple(map(str, self.after))

    @property
    def is_unique(self) -> bool:
        """Whether the job keeps equal ones out."""
        rules = (self.unique, self.unique_ttl, self.debounce, self.throttle)
        return self.unique is not False and rules != _NO_RULES

    @property
    def is_debounced(self) -> bool:
        """Whether the job waits for the calls that may replace it."""
        return self.debounce is not None and self.unique is not False

    @property
    def is_scheduled(self) -> bool:
        """Whether the job waits for its time before it is queued."""
        return self.delay is not None or self.at is not None or self.is_debounced

    def over(self, base: Options) -> Options:
        """These options, with `base`'s for those that are not set."""
        said = {name: value for name in _NAMES if (value := getattr(self, name)) is not None}
        return replace(base, **said) if said else base


_NAMES = tuple(field.name for field in fields(Options))


OPTION_NAMES = tuple(option.name for option in fields(Options))


def _seconds(name: str, value: Any) -> float:
    """The seconds of a span that the option `name` can have. Raises `InvalidOption`."""
    is_kept = name in ("result_ttl", "failure_ttl")
    may_be_none = name != "timeout" and name not in _UNIQUE_SPANS
    try:
        seconds = in_seconds(value, name)
    except UnfitSpan as error:
        raise InvalidOption(str(error)) from None
    keeps_for_ever = is_kept and seconds == -1
    never_runs = not may_be_none and seconds == 0
    if keeps_for_ever or (0 <= seconds <= LONGEST_SPAN and not never_runs):
        return seconds
    least = "of 0 or more" if may_be_none else "above 0"
    more = ", or -1 to keep it forever" if is_kept else ""
    raise InvalidOption(f"{name}={value!r}: give a span {least}, at most a hundred years{more}")


def _check_whole(name: str, value: Any, least: int, most: int) -> None:
    """Raise `InvalidOption` unless `value` is None or a number that the option `name` can have."""
    is_whole = isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
    if value is not None and not is_whole:
        raise InvalidOption(f"{name}={value!r}: give a whole number from {least} to {most}")


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_template(value: Any) -> bool:
    return isinstance(value, str) and value != "" and _is_text(value)


def _check_names(options: Options) -> None:
    """Raise `InvalidOption` for what can't be a queue's name or a job's id."""
    if options.queue is not None and queue_name(queue_key(options.queue)) is None:
        raise InvalidOption(
            f"queue={options.queue!r}: that is a priority band of a queue: give priority instead"
        )
    if options.job_id is not None and not JOB_ID.fullmatch(options.job_id):
        raise InvalidOption(f"job_id={options.job_id!r}: use up to 200 letters, digits, _ and -")


def _check_after(options: Options) -> None:
    """Raise `InvalidOption` for what can't be jobs' ids, or for a job that also waits for a time."""
    after = options.after
    if after is None:
        return
    ids = [after] if isinstance(after, str) else after
    if not isinstance(ids, list | tuple) or not all(
        isinstance(id, str) and id and _is_text(id) for id in ids
    ):
        raise InvalidOption(f"after={after!r:.200}: give a job's id, or a list of ids")
    if not 0 < len(ids) <= MOST_PARENTS or len(set(ids)) < len(ids):
        raise InvalidOption(f"after: give 1 to {MOST_PARENTS} jobs, each once")
    if options.is_scheduled:
        raise InvalidOption(
            "a job waits for others or for a time: omit after, or omit delay, at and debounce"
        )


def _check_batch(options: Options) -> None:
    """Raise `InvalidOption` for what can't be a batch's id, or for a job that can't be in one."""
    if options.batch is not None and not JOB_ID.fullmatch(options.batch):
        raise InvalidOption(f"batch={options.batch!r}: give the id of a batch")
    if options.batch is not None and options.is_debounced:
        raise InvalidOption(
            "a debounced job may be replaced by one of another batch: give debounce or batch, not both"
        )


def _check_unique(options: Options) -> None:
    """Raise `InvalidOption` for options of unique jobs that contradict each other."""
    unique = options.unique
    if not (unique is None or isinstance(unique, bool) or _is_template(unique)):
        raise InvalidOption(f"unique={unique!r}: give True, False, or a text such as '{{account_id}}'")
    if unique is False:
        return
    given = [name for name in ("unique_ttl", "debounce", "throttle") if getattr(options, name) is not None]
    if len(given) > 1:
        raise InvalidOption(f"give {' or '.join(given)}, not both")
    if options.debounce_limit is not None and options.debounce is None:
        raise InvalidOption("debounce_limit bounds debounce: give debounce too")
    if options.debounce is None:
        return
    if options.debounce_limit is not None and in_seconds(options.debounce_limit) < in_seconds(
        options.debounce
    ):
        raise InvalidOption(f"debounce_limit={options.debounce_limit!r}: give at least debounce")
    for name in ("delay", "at", "job_id"):
        if getattr(options, name) is not None:
            raise InvalidOption(f"debounce sets when the job runs and which it is: omit {name}")
