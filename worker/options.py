"""Options of worker processes: one value from the command to the pool to the process."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from packmule.jobs.host_shares import Shares
from packmule.jobs.options import DEFAULT_RESULT_TTL
from packmule.worker.process.claim import MOST


@dataclass(frozen=True)
class WorkerOptions:
    """How a worker process performs jobs. Spans are in seconds, and memory is in bytes."""

    threads: int = 1
    """Plain functions performed at once: above 1 each runs in a thread."""
    tasks: int = 100
    """Async functions performed at once."""
    isolated: Shares | None = None
    """What the processes of a pool share: each of their isolated jobs takes one. None leaves one for each."""
    most: int = MOST
    """Jobs that one claim takes at most."""
    burst: bool = False
    """Leave when the queues are empty."""
    max_jobs: int | None = None
    """Leave after this many jobs."""
    max_idle: float | None = None
    """Leave after this long without a job."""
    max_memory: int | None = None
    """Leave when the process uses more than this."""
    max_result_bytes: int = 1024 * 1024
    """The most that a result may hold as JSON."""
    result_ttl: int = int(DEFAULT_RESULT_TTL)
    """How long results are kept of jobs that don't say it."""
    job_log_level: int = logging.INFO
    """The least level of lines that jobs' own logs keep."""
    webhook_allow: tuple[str, ...] = ()
    """Internal hosts and networks that RQ's webhooks may reach."""
    machine: str = ""
    """The name under which it shares limits of its machine; by default that of its host."""
    release: str = ""
    """What names the code that it runs, such as a commit's id."""
    unknown_for: float = 600.0
    """How long a job whose function is unknown goes back for another worker before it fails."""

    @property
    def capacity(self) -> dict[str, int]:
        """How many jobs of each kind it performs at once."""
        return {"threads": self.threads, "tasks": self.tasks}
