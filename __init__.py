"""Background jobs on RQ and Redis: `from packmule import job, current, Retry, Batch`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from packmule.errors import Conflict, Error, JobFailed, NotFound, Unavailable, UsageError
from packmule.jobs import current
from packmule.jobs.handle import JobCanceled, JobHandle, JobHandles, JobRaised
from packmule.jobs.interrupts import Retry, Stopped
from packmule.jobs.job import job
from packmule.jobs.job_type import InvalidCall, InvalidJob, JobSettings
from packmule.jobs.options import InvalidOption, JobOptions

if TYPE_CHECKING:
    from packmule.jobs.batch import Batch
    from packmule.jobs.client import Client
    from packmule.jobs.reader import JobInfo, NoSuchJob

__all__ = [  # noqa: RUF022  in the groups in which they are looked for
    # declaring and enqueueing jobs
    "job",
    "JobOptions",
    "JobSettings",
    "Client",
    # an enqueued job
    "JobHandle",
    "JobHandles",
    "JobInfo",
    # the running job
    "current",
    "Retry",
    "Stopped",
    # many jobs together
    "Batch",
    # errors
    "Error",
    "UsageError",
    "NotFound",
    "Conflict",
    "Unavailable",
    "JobFailed",
    "JobRaised",
    "JobCanceled",
    "InvalidCall",
    "InvalidJob",
    "InvalidOption",
    "NoSuchJob",
]

_LATE = {"Batch": "batch", "Client": "client", "JobInfo": "reader", "NoSuchJob": "reader"}
"""What talks to Redis, by its module in `packmule.jobs`: redis-py takes longer to load than all the rest."""


def __getattr__(name: str) -> Any:
    """Load what talks to Redis when it is first asked for."""
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = getattr(import_module(f"packmule.jobs.{_LATE[name]}"), name)
    return globals()[name]
