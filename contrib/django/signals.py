"""The signals of tasks while workers perform them: started, and finished once they will not run again."""

from __future__ import annotations

import traceback
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from contextvars import ContextVar
from typing import Any, Protocol

from asgiref.sync import sync_to_async
from django.utils import timezone

from packmule.contrib.django.library import (
    TaskError,
    TaskResult,
    TaskResultDoesNotExist,
    TaskResultStatus,
    task_finished,
    task_started,
)
from packmule.hooks import Performing
from packmule.jobs.context import running as running_job

_running: ContextVar[TaskResult | None] = ContextVar("running_task", default=None)

running = _running.get
"""The result of the task that this code runs in, or None outside of one."""

_ENDS = ("finished", "failed", "stopped")


class Results(Protocol):
    """Knows the results of tasks."""

    def result_at_start(self, run: Performing) -> TaskResult:
        """The result of the task whose run begins. Raises `TaskResultDoesNotExist`."""


class Signals(AbstractContextManager[None], AbstractAsyncContextManager[None]):
    """Sends the signals of one run of a task; nothing if it has no backend and so is of none."""

    def __init__(self, backend: Results | None, job: Performing) -> None:
        self.backend = backend
        self.job = job
        self.token: Any = None

    def __enter__(self) -> None:
        if self.backend and (result := self._begun(self.backend)) is not None:
            self.token = _running.set(result)
            task_started.send(type(self.backend), task_result=result)

    def __exit__(self, *_: object) -> None:
        if self.token is not None and (result := self._ended()) is not None:
            task_finished.send(type(self.backend), task_result=result)

    async def __aenter__(self) -> None:
        if self.backend and (result := await sync_to_async(self._begun)(self.backend)) is not None:
            self.token = _running.set(result)
            await task_started.asend(type(self.backend), task_result=result)

    async def __aexit__(self, *_: object) -> None:
        if self.token is not None and (result := self._ended()) is not None:
            await task_finished.asend(type(self.backend), task_result=result)

    def _begun(self, backend: Results) -> TaskResult | None:
        """The result as it is now: its record says so later, and only if the run takes long."""
        try:
            result = backend.result_at_start(self.job)
        except TaskResultDoesNotExist:  # its record was deleted meanwhile
            return None
        worker = running_job()
        names = [worker.claims.rpartition(":")[2]] if worker else []
        now = timezone.now()
        _change(
            result,
            status=TaskResultStatus.RUNNING,
            started_at=result.started_at or now,
            last_attempted_at=now,
            worker_ids=[*result.worker_ids[: self.job.attempt - 1], *names],
        )
        return result

    def _ended(self) -> TaskResult | None:
        """The result at the end; None if the task runs again."""
        result = _running.get()
        _running.reset(self.token)
        if result is None or self.job.outcome not in _ENDS:
            return None
        if self.job.error is None:
            _change(result, status=TaskResultStatus.SUCCESSFUL, _return_value=self.job.result)
        else:
            _change(result, status=TaskResultStatus.FAILED, errors=[_error_of(self.job.error)])
        _change(result, finished_at=timezone.now())
        return result


def _change(result: TaskResult, **values: Any) -> None:
    for name, value in values.items():
        object.__setattr__(result, name, value)  # as Django's own backends do


def _error_of(error: BaseException) -> TaskError:
    kind = type(error)
    return TaskError(
        exception_class_path=f"{kind.__module__}.{kind.__qualname__}",
        traceback="".join(traceback.format_exception(error)),
    )
