"""Storages for tests: lent to the jobs that a test performs, and on a disk that is full."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from packmule.jobs import context
from packmule.jobs.input_limits import InputLimits
from packmule.jobs.storage import Storage


def stored(folder: Path | str, file_bytes: int) -> Storage:
    """The storage in `folder`, lent to jobs, whose files may have so many bytes."""
    storage = Storage(str(folder))
    context.provide(storage, InputLimits(file_bytes=file_bytes, attachment_bytes=1, pixels=1))
    return storage


@contextmanager
def full_disk(most: int) -> Iterator[None]:
    """Within it, no file that this process writes may have more than `most` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
