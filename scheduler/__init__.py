"""The scheduler: what must happen once per cluster, done by one leader at a time."""

from scheduler.scheduler import Scheduler

__all__ = ["Scheduler"]
