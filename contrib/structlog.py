"""structlog: the lines that a job logs say of which job they are. Name it in `PACKMULE_HOOKS`.

Your configuration of structlog needs the processor `structlog.contextvars.merge_contextvars`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from structlog.contextvars import bind_contextvars, clear_contextvars, get_contextvars

from packmule import hooks
from packmule.hooks import Performing


@hooks.perform
@contextmanager
def bind(job: Performing) -> Iterator[None]:
    """Bind what a run is, and nothing else; what was bound before is back behind it.

    So no job sees what another bound and left, in the same thread.
    """
    before = get_contextvars()
    clear_contextvars()
    bind_contextvars(job_id=job.id, job=job.name, queue=job.queue, attempt=job.attempt)
    try:
        yield
    finally:
        clear_contextvars()
        bind_contextvars(**before)
