"""Subprocesses: what a job has started ends with it where it is interrupted. On Linux only, by `/proc`."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from pathlib import Path

from packmule.worker.kernel import clock

_TICKS = os.sysconf("SC_CLK_TCK")
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


def kill_started_here(seconds: float) -> None:
    """Kill what this thread started in the last `seconds` and still runs, with all that descends from it."""
    since = clock() - seconds - 1 / _TICKS
    try:
        children = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()
    except OSError:
        return
    for child in map(int, children):
        if (fields := _stat(child)) and int(fields[_STARTED]) / _TICKS >= since:
            kill_tree(child)


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
