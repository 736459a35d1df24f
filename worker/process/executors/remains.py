"""Remains: what a job may leave behind in its process, by which it could reach the next one."""

from __future__ import annotations

import _locale
import _socket  # of whose sockets `socket`'s make objects, which touches much memory
import os
import resource
import signal
import stat
import threading
from _signal import getsignal  # type: ignore[import-not-found]

from packmule.config import raw_environment
from packmule.jobs.context import REPORTER
from packmule.units import MIB
from packmule.worker.kernel import mask_signals, own_memory
from packmule.worker.process.executors.pipe import pipe
from packmule.worker.subprocesses import has_children

MOST_GROWTH = 64 * MIB
"""A process that has grown by more than this is not used again."""


class Remains:
    """Compares a process with what it was when this was made.

    Values in Python's memory are not compared: jobs whose functions keep some don't share a process.
    """

    def __init__(self) -> None:
        self._memory = own_memory()
        self._found = _found()

    def are_all(self) -> bool:
        """Whether nothing else is left than there was."""
        grown = zip(own_memory(), self._memory, strict=True)
        return (
            sorted(thread.name for thread in threading.enumerate()) in _OWN_THREADS
            and len(_listed("task")) == threading.active_count()
            and all(now - before <= MOST_GROWTH for now, before in grown)
            and not has_children()
            and _found() == self._found
        )


class Connections:
    """The connections that this process had when it last noted them, for one that it has forked since."""

    def __init__(self) -> None:
        self._closed = -1
        """One whose peer has closed it."""
        self._numbers: list[int] = []

    def note(self) -> None:
        """Note which connections a process would inherit that is forked now."""
        if self._closed < 0:
            self._closed, other = pipe()
            os.close(other)
        kept = {0, 1, 2, self._closed}
        self._numbers = [each for each in _listed("fd") if each not in kept and _is_connection(each)]

    def drop(self) -> None:
        """Let each look as if its peer had closed it, in the process that has inherited them.

        Two processes that use one connection would break it for both.
        """
        for number in self._numbers:
            os.dup2(self._closed, number, inheritable=False)

    def close(self) -> None:
        """Give up what this has opened."""
        if self._closed >= 0:
            os.close(self._closed)
            self._closed = -1


def _is_connection(number: int) -> bool:
    try:
        if not stat.S_ISSOCK(os.fstat(number).st_mode):
            return False
        found = _socket.socket(fileno=number)
    except OSError:
        return False  # the listing itself
    try:
        return found.type == _socket.SOCK_STREAM and found.getpeername() is not None
    except OSError:
        return False  # it listens
    finally:
        found.detach()


def _listed(what: str) -> list[int]:
    """The numbers of this process's descriptors (with that of the listing) or of its threads."""
    return list(map(int, os.listdir(f"/proc/self/{what}")))  # noqa: PTH208  cheaper than paths


def _found() -> tuple[object, ...]:
    umask = os.umask(0o077)
    os.umask(umask)
    return (
        umask,
        os.getcwd(),  # noqa: PTH109  cheaper than a path
        raw_environment(),
        _locale.setlocale(_locale.LC_ALL),
        list(map(_file, _listed("fd"))),
        list(map(getsignal, _SIGNALS)),
        mask_signals(signal.SIG_BLOCK, ()),
        list(map(signal.getitimer, _TIMERS)),
        list(map(resource.getrlimit, _LIMITS)),
        [resource.getrlimit(each)[1] for each in _OWN_LIMITS],
        os.getpriority(os.PRIO_PROCESS, 0),
        os.sched_getaffinity(0),
        (os.geteuid(), os.getegid(), os.getgroups()),
    )


def _file(number: int) -> tuple[int, ...]:
    """A descriptor, and the file behind it; a connection may be a new one to the same peer."""
    try:
        mode, inode, device = os.fstat(number)[:3]  # by name they take three times as long
    except OSError:
        return (number,)  # the listing itself
    kind = stat.S_IFMT(mode)
    return (number, kind) if kind == stat.S_IFSOCK else (number, kind, device, inode)


_OWN_LIMITS = (resource.RLIMIT_AS, resource.RLIMIT_CPU)
"""Those that are set for each job, within the hard ones."""

_LIMITS = tuple(each for each in range(16) if each not in _OWN_LIMITS)
"""The other limits of a process that the kernel knows."""

_TIMERS = signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF

_OWN_THREADS = (["MainThread"], ["MainThread", REPORTER])

_NO_HANDLER = {32, 33}
"""Signals that the C library keeps for itself."""

_SIGNALS = tuple(each for each in range(1, signal.NSIG) if each not in _NO_HANDLER)
