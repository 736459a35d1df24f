"""A batch: many jobs under one id, counted together, and one more that is enqueued once when all have ended.

cd docs/examples && PACKMULE_MODULES=batch packmule worker     in one terminal
cd docs/examples && PACKMULE_MODULES=batch python -m batch     in another
"""

from __future__ import annotations

from packmule import job
from packmule.jobs.batch import Batch


@job
def square(number: int) -> int:
    return number * number


@job
def report(title: str) -> str:
    """Called back: the batch that it is about is the current one."""
    if (batch := Batch.current()) is None:
        return "called by hand"
    found = [result.value for result in batch.results() if result.error is None]
    return f"{title}: {sum(found)} of {batch.state().counts.total}"


def start() -> None:
    """Enqueue a hundred jobs, and wait for their end."""
    with Batch.create("squares", on_complete=report.prepare("squares"), collect=True) as batch:
        square.options(batch=batch.id).enqueue_many([(number,) for number in range(100)])
    counts = batch.wait(timeout=60).counts
    print(f"{counts.done} done, {counts.failed} failed")


if __name__ == "__main__":
    from batch import start as start_of_the_module  # workers find its jobs by this name

    start_of_the_module()
