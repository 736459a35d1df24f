"""Which of several descriptors can be read: like `select`, but also for those numbered above 1,023."""

from __future__ import annotations

import errno
import select
from collections.abc import Iterable
from typing import Protocol, TypeVar


class HasDescriptor(Protocol):
    """A socket, a pipe or a file."""

    def fileno(self) -> int:
        """Its descriptor."""
        ...


Watched = TypeVar("Watched", bound=int | HasDescriptor)


def readable(watched: Iterable[Watched], seconds: float | None) -> list[Watched]:
    """Those of `watched` that can be read, or have ended, within `seconds` (None: wait until one can).

    >>> reader, writer = os.pipe()
    >>> readable([reader], 0)
    []

    Raises `OSError` or `ValueError` if one of them is closed here.
    """
    poller = select.poll()
    by_number = {each if isinstance(each, int) else each.fileno(): each for each in watched}
    for number in by_number:
        poller.register(number, select.POLLIN)
    found = poller.poll(None if seconds is None else max(0.0, seconds) * 1000)
    if any(event & select.POLLNVAL for _, event in found):
        raise OSError(errno.EBADF, "a closed descriptor is waited for")
    return [by_number[number] for number, _ in found]
