"""Background jobs on RQ and Redis: `from packmule import job, current, Retry, Batch`."""

from packmule.jobs import current
from packmule.jobs.interrupts import Retry
from packmule.jobs.job import job

__all__ = ["Retry", "current", "job"]
