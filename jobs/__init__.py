"""Jobs: how they are written, enqueued and read, and the ready-made ones."""

from jobs import current
from jobs.interrupts import Retry
from jobs.registry import job

__all__ = ["Retry", "current", "job"]
