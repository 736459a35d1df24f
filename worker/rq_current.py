"""What `rq.get_current_job()` returns in a job that our own code performs: loaded only if it is looked at."""

from __future__ import annotations

from typing import Any

from redis import Redis
from rq.job import Job, _job_stack


class LazyJob(Job):
    """A job that is not yet loaded. The first touch loads it and leaves an ordinary `Job`."""

    def __init__(self, id: str, connection: Redis, serializer: Any) -> None:
        self.__dict__["_to_load"] = (id, connection, serializer)

    def __getattr__(self, name: str) -> Any:
        self._load()
        return getattr(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._load()
        setattr(self, name, value)

    def _load(self) -> None:
        id, connection, serializer = self.__dict__.pop("_to_load")
        object.__setattr__(self, "__class__", Job)
        self.__init__(id, connection, serializer)  # type: ignore[misc]
        self.refresh()  # type: ignore[no-untyped-call]


class CurrentJob:
    """The place where RQ looks for the current job. Its push and pop cost more than a short job does."""

    def __init__(self) -> None:
        _job_stack.push(None)  # type: ignore[no-untyped-call]
        self._stack: list[Job | None] = _job_stack._local.stack

    def set(self, job: Job | None) -> None:
        """Make `job` the current one of this thread."""
        self._stack[-1] = job

    def close(self) -> None:
        """Leave the place as it was."""
        _job_stack.pop()  # type: ignore[no-untyped-call]
