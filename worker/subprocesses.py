"""Subprocesses: what a job has started ends with it where it is interrupted. On Linux only, by `/proc`."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from functools import partial
from pathlib import Path

SHORTEST_START = 0.0001
"""No process can be started in fewer seconds."""

ask_for_child = partial(os.waitid, os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
"""It raises `ChildProcessError` if this process has no child. It is cheap, since many jobs ask it."""

_PARENT, _STARTED = 1, 19
"""Where these are among the fields of `/proc/<pid>/stat` that follow the name."""


def kill_tree(pid: int) -> None:
    """Kill a process and all that descend from it, whatever sessions they are in.

    Each is stopped before its children are looked for, so that it starts none that are overlooked.
    """
    found: set[int] = set()
    front = {pid}
    while front:
        for each in front:
            _send(each, signal.SIGSTOP)
        found |= front
        front = {child for child, parent in _parents().items() if parent in found} - found
    for each in found:
        _send(each, signal.SIGKILL)


def has_children() -> bool:
    """Whether this process has a child, perhaps one that has ended and was not reaped."""
    try:
        ask_for_child()
    except ChildProcessError:
        return False
    return True


def kill_children() -> None:
    """Kill all that descends from this process."""
    if has_children():
        for child, parent in _parents().items():
            if parent == os.getpid():
                kill_tree(child)


def descendants(pid: int) -> list[int]:
    """The processes that descend from `pid`, the nearer ones first."""
    parents, found = _parents(), [pid]
    for each in found:
        found += sorted(child for child, parent in parents.items() if parent == each and child not in found)
    return found[1:]


class Children:
    """The processes that this thread starts from now on."""

    def __init__(self) -> None:
        self._earlier = _children()

    def note(self) -> None:
        """Note what the job that has just ended left behind."""
        self._earlier = _children()

    def kill_new(self) -> None:
        """Kill what was started since the last note, and still runs, with all that descends from it."""
        for child, _ in _children() - self._earlier:
            kill_tree(child)


def _children() -> frozenset[tuple[int, str]]:
    """The number of each child of this thread, and when it started, for numbers are used again."""
    try:
        children = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()
    except OSError:
        return frozenset()
    return frozenset((int(child), fields[_STARTED]) for child in children if (fields := _stat(int(child))))


def _parents() -> dict[int, int]:
    """The parent of each process."""
    pids = [int(entry.name) for entry in Path("/proc").glob("[0-9]*")]
    return {pid: int(fields[_PARENT]) for pid in pids if (fields := _stat(pid))}


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, UnicodeDecodeError):
        return []  # it is gone


def _send(pid: int, signum: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signum)
