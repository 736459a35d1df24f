"""Workers: they claim jobs, perform them and acknowledge the outcomes; a dead worker's jobs are rescued."""

from packmule.worker.rq_adapter import Worker

__all__ = ["Worker"]
