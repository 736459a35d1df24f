"""Background jobs on RQ and Redis: `from packmule import job, current, Retry, Batch, Flow`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from packmule.errors import Conflict, Error, JobFailed, NotFound, Unavailable, UsageError

if TYPE_CHECKING:
    from packmule.jobs import current
    from packmule.jobs.batch import Batch
    from packmule.jobs.client import Client
    from packmule.jobs.flow import Flow
    from packmule.jobs.flow_parts import chain, group
    from packmule.jobs.handed import result
    from packmule.jobs.handle import JobCanceled, JobHandle, JobHandles, JobRaised
    from packmule.jobs.interrupts import Retry, Stopped
    from packmule.jobs.job import job
    from packmule.jobs.job_filter import InvalidFilter, JobFilter
    from packmule.jobs.job_type import InvalidCall, InvalidJob, JobSettings
    from packmule.jobs.options import InvalidOption, JobOptions
    from packmule.jobs.reader import JobInfo, NoSuchJob
    from packmule.jobs.secrets import Secret

__all__ = [  # noqa: RUF022  in the groups in which they are looked for
    # declaring and enqueueing jobs
    "job",
    "JobOptions",
    "JobSettings",
    "Secret",
    "Client",
    "JobFilter",
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
    "Flow",
    "chain",
    "group",
    "result",
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
    "InvalidFilter",
    "InvalidJob",
    "InvalidOption",
    "NoSuchJob",
]

_HOMES = {
    "batch": ("Batch",),
    "client": ("Client",),
    "flow": ("Flow",),
    "flow_parts": ("chain", "group"),
    "handed": ("result",),
    "handle": ("JobCanceled", "JobHandle", "JobHandles", "JobRaised"),
    "interrupts": ("Retry", "Stopped"),
    "job": ("job",),
    "job_filter": ("InvalidFilter", "JobFilter"),
    "job_type": ("InvalidCall", "InvalidJob", "JobSettings"),
    "options": ("InvalidOption", "JobOptions"),
    "reader": ("JobInfo", "NoSuchJob"),
    "secrets": ("Secret",),
}
"""The modules of `packmule.jobs` and what they define, loaded on first use: a command's help needs none."""

_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Load what is asked for from its module."""
    if name == "current":
        return import_module("packmule.jobs.current")
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"packmule.jobs.{_HOME_OF[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
