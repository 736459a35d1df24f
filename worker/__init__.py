"""Workers: they claim jobs, perform them and acknowledge the outcomes; a dead worker's jobs are rescued."""

from packmule.worker.process.worker import Worker

__all__ = ["Worker"]
