"""Workers: they claim jobs, perform them, hand in what came of it, and are rescued from when they die."""

from worker.worker import Worker

__all__ = ["Worker"]
