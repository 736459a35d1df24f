"""The backend of `django.tasks`: tasks are jobs of the same name, and workers perform them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import make_dataclass, replace
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.core import checks
from django.utils import timezone

from packmule import config, hooks
from packmule.contrib.django import signals
from packmule.contrib.django.library import (
    BaseTaskBackend,
    Task,
    TaskContext,
    TaskError,
    TaskResult,
    TaskResultDoesNotExist,
    TaskResultStatus,
    normalize_json,
    task_enqueued,
)
from packmule.coordination.redis.backoff import REDIS_ERRORS, is_transient
from packmule.coordination.redis.replies import as_text
from packmule.jobs import registry, wire
from packmule.jobs.client import Client
from packmule.jobs.context import running
from packmule.jobs.job import SETTINGS, TRAITS
from packmule.jobs.job_type import JobType, Traits, job_type
from packmule.jobs.options import Options
from packmule.jobs.reader import JobInfo, NoSuchJob

STATUSES = {
    "started": TaskResultStatus.RUNNING,
    "finished": TaskResultStatus.SUCCESSFUL,
    "failed": TaskResultStatus.FAILED,
    "stopped": TaskResultStatus.FAILED,
    "canceled": TaskResultStatus.FAILED,
}
"""Django's word for each status in which a job isn't ready to run."""

_OF_DJANGO = {"queue", "priority", "at", "at_front", "delay", "job_id"}
_OURS = [name for name in SETTINGS if name not in _OF_DJANGO]

_TASKS: dict[str, dict[str, Task]] = {}
"""The tasks of each backend, by its alias and their names: Django makes a backend anew in each thread."""

PackmuleTask: Any = make_dataclass(
    "PackmuleTask",
    [(name, Any, None) for name in _OURS],
    bases=(Task,),
    namespace={"__doc__": "A task with options of Packmule's: `@task(retries=3, unique=True)` (Django 6.1)."},
    frozen=True,
    slots=True,
    kw_only=True,
)
PackmuleTask.__module__ = __name__


class PackmuleBackend(BaseTaskBackend):  # type: ignore[misc]
    """Enqueues tasks as jobs, and reads results back from any process.

    >>> TASKS = {"default": {"BACKEND": "packmule.contrib.django.tasks.PackmuleBackend"}}
    """

    task_class = PackmuleTask
    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def __init__(self, alias: str, params: Mapping[str, Any]) -> None:
        super().__init__(alias, params)
        self._tasks = _TASKS.setdefault(alias, {})

    def validate_task(self, task: Task) -> None:
        """Check a task, and let workers of this process perform it. Raises `InvalidTask`."""
        super().validate_task(task)
        known = self._tasks.get(task.module_path)
        if known is None or known.func is not task.func:
            self._tasks[task.module_path] = task
            registry.add(self._job_type(task))

    def enqueue(self, task: Task, args: Sequence[Any], kwargs: Mapping[str, Any]) -> TaskResult:
        """Send a job for a call of the task, at the end of an open transaction if there is one."""
        self.validate_task(task)
        args, kwargs = normalize_json(list(args)), normalize_json(dict(kwargs))
        options = Options(queue=task.queue_name, priority=task.priority, at=_aware(task.run_after))
        (handle,) = Client.default().send(registry.find(task.module_path), [(args, kwargs)], options)
        result = self._ready(task, str(handle), args, kwargs, timezone.now())
        task_enqueued.send(type(self), task_result=result)
        return result

    def get_result(self, result_id: str) -> TaskResult:
        """The result of the task's job. Raises `TaskResultDoesNotExist`, also for a job of another kind."""
        try:
            job = Client.default().read(result_id)
        except NoSuchJob as error:
            raise TaskResultDoesNotExist(result_id) from error
        return self.result_of(job)

    def result_at_start(self, run: hooks.Performing) -> TaskResult:
        """The result of the task whose run begins: while Redis is away, as far as its claim says it.

        Raises `TaskResultDoesNotExist`.
        """
        try:
            return self.get_result(run.id)
        except REDIS_ERRORS as error:
            if not is_transient(error):
                raise
        job = running()
        at = _instant(as_text(job.enqueued_at)) if job and job.enqueued_at else None
        names = [""] * (run.attempt - 1)
        return self._ready(self._tasks[run.name], run.id, run.args, run.kwargs, at, names)

    def _ready(
        self,
        task: Task,
        id: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        at: datetime | None,
        workers: Sequence[str] = (),
    ) -> TaskResult:
        return TaskResult(
            task=task,
            id=id,
            status=TaskResultStatus.READY,
            enqueued_at=at,
            started_at=None,
            finished_at=None,
            last_attempted_at=None,
            args=list(args),
            kwargs=dict(kwargs),
            backend=self.alias,
            errors=[],
            worker_ids=list(workers),
        )

    def result_of(self, job: JobInfo) -> TaskResult:
        """What a job is as a task's result. Raises `TaskResultDoesNotExist`."""
        task = self._task_of(job)
        started = _instant(job.started_at)
        failed = job.error is not None or job.status in ("stopped", "canceled")
        result = TaskResult(
            task=task,
            id=job.id,
            status=STATUSES.get(job.status, TaskResultStatus.READY),
            enqueued_at=_instant(job.enqueued_at) or _instant(job.created_at),
            started_at=started,
            finished_at=_instant(job.ended_at) if job.has_ended else None,
            last_attempted_at=started,
            args=list(job.args),
            kwargs=job.kwargs,
            backend=self.alias,
            errors=[_error(job)] if failed else [],
            worker_ids=[job.worker or ""] * (job.attempts + (started is not None and job.status in STATUSES)),
        )
        object.__setattr__(result, "_return_value", job.result)
        return result

    def check(self, **_: Any) -> list[checks.CheckMessage]:
        """Say which of its queues no worker of these settings serves."""
        known = config.Settings.from_env().queues
        return [
            checks.Error(
                f"TASKS[{self.alias!r}] names the queue {name!r}, which PACKMULE_QUEUES lacks",
                hint=f"Packmule's queues are {', '.join(known)}",
                id="packmule.E001",
            )
            for name in sorted(self.queues - set(known))
        ]

    def _task_of(self, job: JobInfo) -> Task:
        task = self._tasks.get(job.name)
        if task is None:
            raise TaskResultDoesNotExist(
                f"{job.id} is a job of {job.name}, which is not a task of this backend"
            )
        if self.queues and job.queue not in self.queues:
            return task
        return replace(task, queue_name=job.queue, priority=job.priority)

    def _job_type(self, task: Task) -> JobType:
        asked = {name: getattr(task, name, None) for name in _OURS}
        given = {name: value for name, value in asked.items() if value is not None}
        traits = Traits(**{name: given.pop(name) for name in TRAITS if name in given})
        options = Options(queue=task.queue_name, priority=task.priority, **given)
        return job_type(task.module_path, self._function(task), options, traits, typed=False)

    def _function(self, task: Task) -> Any:
        """What workers call: the task's function, with its context in front if it takes that."""
        function = task.func
        if not task.takes_context:
            return function

        async def in_task(*args: Any, **kwargs: Any) -> Any:
            return await function(self._context(), *args, **kwargs)

        def called(*args: Any, **kwargs: Any) -> Any:
            return function(self._context(), *args, **kwargs)

        made: Any = in_task if inspect.iscoroutinefunction(function) else called
        signature = inspect.signature(function)
        made.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])
        return made

    def _context(self) -> TaskContext:
        return TaskContext(task_result=signals.running())


@hooks.perform
def _around(job: hooks.Performing) -> signals.Signals:
    found = (tasks[job.name] for tasks in _TASKS.values() if job.name in tasks and not job.callback)
    task = next(found, None)
    return signals.Signals(task and task.get_backend(), job)


def _error(job: JobInfo) -> TaskError:
    """The error that ended the job's last run, by the name with which its traceback ends."""
    last = (job.error or "").rstrip().rpartition("\n")[2]
    name = last.partition(":")[0].strip()
    is_name = all(part.isidentifier() for part in name.split("."))
    if not is_name:
        name = "builtins.RuntimeError" if job.error else "packmule.jobs.handle.JobCanceled"
    return TaskError(
        exception_class_path=name if "." in name else f"builtins.{name}",
        traceback=job.error or f"the job was {job.status}",
    )


def _instant(text: str | None) -> datetime | None:
    """A time of a record as Django has times: aware if the project uses time zones."""
    seconds = wire.time_seconds(text) if text else None
    if seconds is None:
        return None
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment if settings.USE_TZ else timezone.make_naive(moment)


def _aware(moment: datetime | None) -> datetime | None:
    if moment is None or timezone.is_aware(moment):
        return moment
    aware: datetime = timezone.make_aware(moment)
    return aware
