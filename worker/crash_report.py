"""Crash reports: what killed a worker process, and what it was doing."""

from __future__ import annotations

import signal
import socket
import sys
import time
from resource import struct_rusage

import msgspec

from packmule.jobs import wire
from packmule.units import given_size, span
from packmule.worker.kernel import out_of_memory_kills
from packmule.worker.scoreboard import RunningJob

ENDED_ITSELF = frozenset({"SIGABRT", "SIGTRAP", "SIGILL", "SIGSEGV", "SIGBUS"})
"""Of what a process dies whose library finds no memory."""
NEARLY = 0.75


class CrashReport(msgspec.Struct, frozen=True):
    """How a process died. The report is stored with the job that the process was performing.

    `cause` is a sentence for people. Of `signal` (a name) and `exit_code` one is None. `out_of_memory` says
    whether the kernel killed the process for memory, None if it doesn't say. `peak_memory` is in bytes;
    `seconds` is how long the job ran. `at` is RQ's text of the time.
    """

    cause: str
    signal: str | None
    exit_code: int | None
    out_of_memory: bool | None
    peak_memory: int
    seconds: float
    worker: str
    host: str
    at: str


def report_crash(
    worker: str,
    code: int,
    running: RunningJob | None,
    usage: struct_rusage,
    kills_before: int | None,
    most_memory: int | None = None,
) -> CrashReport:
    """The report of a process that exited with `code`, negative for a signal.

    `kills_before` is what `out_of_memory_kills` returned when the process started. It could have
    `most_memory` bytes, at which some libraries end their process.
    """
    killed_by = _signal_name(-code) if code < 0 else None
    kills = out_of_memory_kills()
    out_of_memory = (
        None if kills is None or kills_before is None else killed_by == "SIGKILL" and kills > kills_before
    )
    seconds = time.monotonic() - running.started if running else 0.0
    cause = f"died of {killed_by}" if killed_by else f"exited with code {code}"
    if out_of_memory:
        cause += ", killed by the kernel because memory ran out,"
    elif killed_by in ENDED_ITSELF and most_memory is not None and _peak(usage) > NEARLY * most_memory:
        cause += f", maybe because it can have no more than {given_size(most_memory)} of memory,"
    doing = (
        f"the process performing this job {cause} after {span(seconds)}"
        if running
        else f"its process {cause}"
    )
    return CrashReport(
        cause=doing,
        signal=killed_by,
        exit_code=None if killed_by else code,
        out_of_memory=out_of_memory,
        peak_memory=_peak(usage),
        seconds=round(seconds, 3),
        worker=worker,
        host=socket.gethostname(),
        at=wire.time_text(time.time()),
    )


def _peak(usage: struct_rusage) -> int:
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)  # Linux counts in KiB, macOS in bytes


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"  # a real-time signal, of which only the first and the last have names
