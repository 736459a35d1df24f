"""Interrupting: ends the job that this process performs, on the word of another thread or a signal."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class BrokenOff(BaseException):
    """A running job was ended from outside. A job's `except Exception` does not catch it."""


class JobStopped(BrokenOff):
    """The job was told to stop, as by RQ's `send_stop_job_command`."""


class JobKilled(BrokenOff):
    """The job was killed, as by RQ's `send_kill_horse_command`: it has failed, and retries hold."""


class ColdStop(BrokenOff):
    """The worker stops at once, and the job goes back to its queue."""


class Interrupter:
    """Raises an `BrokenOff` in the main thread, inside a job's own code and nowhere else."""

    def __init__(self) -> None:
        self._running: str | None = None
        self._order: tuple[str | None, BrokenOff] = (None, BrokenOff())

    def install(self) -> None:
        """Take SIGUSR1, which breaks off even a sleep."""
        signal.signal(signal.SIGUSR1, self._obey)

    @contextmanager
    def allowed(self, job_id: str) -> Iterator[None]:
        """In this block the job of `job_id` may be interrupted."""
        self._running = job_id
        try:
            yield
        finally:
            self._running = None

    def interrupt(self, job_id: str, reason: BrokenOff) -> None:
        """End the job of `job_id` by `reason`; nothing happens if it is not running any more."""
        self._order = (job_id, reason)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    def _obey(self, signum: int, frame: FrameType | None) -> None:
        job_id, reason = self._order
        if job_id is not None and job_id == self._running:
            self._running = None
            raise reason
