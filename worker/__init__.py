"""Workers: they claim jobs, perform them, acknowledge what came of it, and are rescued from when they die."""

from packmule.worker.process.worker import Worker

__all__ = ["Worker"]
