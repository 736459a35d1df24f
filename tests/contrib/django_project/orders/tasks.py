"""The shop's tasks, as Django has them."""

import json
import os
import sys
from pathlib import Path

try:
    from django.tasks import TaskContext, task
    from django.tasks.signals import task_enqueued, task_finished, task_started
except ImportError:
    from django_tasks import TaskContext, task
    from django_tasks.signals import task_enqueued, task_finished, task_started


@task
def add(a: int, b: int = 1) -> int:
    """Add."""
    return a + b


@task
def add_later(a: int) -> str:
    """Enqueue another task."""
    return add.enqueue(a).id


@task(priority=10, queue_name="high")
async def multiply(a: int, b: int) -> int:
    """Multiply on the event loop."""
    return a * b


@task(takes_context=True)
def attempt(context: TaskContext, word: str) -> list[object]:
    """Say what it knows of itself."""
    return [word, context.attempt, context.task_result.id, str(context.task_result.status)]


@task(takes_context=True)
async def attempt_later(context: TaskContext, word: str) -> list[object]:
    """Say on the event loop what it knows of itself."""
    return [word, context.attempt, context.task_result.id, str(context.task_result.status)]


@task
def fail() -> None:
    """Fail."""
    raise KeyError("no such order")


@task(retries=1, retry_intervals=[0], unique=True)
def fail_twice() -> None:
    """Fail, and run once more."""
    raise ValueError("not yet")


@task
def what(value: object) -> object:
    """Return what came."""
    return value


def _heard(signal: str):
    def hear(sender, task_result, **_):
        line = [signal, task_result.id, str(task_result.status), sender.__name__]
        with Path(os.environ["SHOP_DATA"], "signals").open("a") as file:
            file.write(json.dumps(line) + "\n")

    return hear


_HEARD = {name: _heard(name) for name in ("enqueued", "started", "finished")}
task_enqueued.connect(_HEARD["enqueued"])
task_started.connect(_HEARD["started"])
task_finished.connect(_HEARD["finished"])
sys.modules[__name__].heard = _HEARD
