"""What the kernel knows and does: memory in use, out-of-memory kills, limits, and death with the parent."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from _signal import pthread_sigmask  # type: ignore[import-not-found]
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")

_PR_SET_PDEATHSIG, _PR_GET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 2, 36
_SIGKILL = int(signal.SIGKILL)
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None

ECHO_SECONDS = 1.0
"""A signal that comes again sooner may be an echo: a terminal and a parent both pass Ctrl-C on, and a parent
of several threads that dies sends its child one signal for each."""

_PAGE = resource.getpagesize()

mask_signals = pthread_sigmask
"""As `signal.pthread_sigmask`, which makes enums of what it returns: that touches much memory."""


def resident_memory(pid: int | None = None) -> int:
    """Bytes of memory that this process, or the process `pid`, uses now; 0 if the kernel doesn't say."""
    try:
        pages = int(Path(f"/proc/{pid or 'self'}/statm").read_text().split()[1])
    except (OSError, IndexError):
        if pid is None and sys.platform == "darwin":
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # its peak: macOS offers no better
        return 0
    return pages * _PAGE


def own_memory() -> tuple[int, int]:
    """Bytes of address space and of memory that this process uses already; 0 if the kernel doesn't say."""
    try:
        with open("/proc/self/statm", "rb", 0) as file:  # noqa: PTH123  cheap enough for each job
            space, resident = file.read().split()[:2]
    except OSError:
        return 0, 0
    return int(space) * _PAGE, int(resident) * _PAGE


def usable_memory() -> int:
    """Bytes of memory that this process may use at most: all of its machine's, or of its cgroup's."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(whole, int((own_cgroup() / "memory.max").read_text()))
    except (OSError, ValueError):  # no cgroup, or one without a limit
        return whole


def limit(what: int, bound: int) -> None:
    """Limit a resource of this process, such as `resource.RLIMIT_AS`, to `bound` or the hard limit."""
    hard = resource.getrlimit(what)[1]
    if hard != resource.RLIM_INFINITY:
        bound = min(bound, hard)
    resource.setrlimit(what, (bound, hard))


def unlimit(what: int) -> None:
    """Raise this process's limit of a resource to the hard one."""
    resource.setrlimit(what, (resource.getrlimit(what)[1],) * 2)


def die_with_parent(parent: int, signum: int = _SIGKILL) -> None:
    """Let the kernel kill this process, or send it `signum`, when `parent` dies; on Linux only."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signum, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)  # it died before this call


def ends_with_parent() -> bool:
    """Whether the kernel sends this process a signal when its parent dies."""
    signum = ctypes.c_int()
    if _prctl is not None:
        _prctl(_PR_GET_PDEATHSIG, ctypes.byref(signum), 0, 0, 0)
    return signum.value > 0


def adopt_orphans() -> None:
    """Let this process become the parent of those below it whose parents end; on Linux only."""
    if _prctl is not None:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def out_of_memory_kills() -> int | None:
    """How many processes the kernel has killed for memory in our cgroup; None if it doesn't say."""
    try:
        events = (own_cgroup() / "memory.events").read_text()
        counts = dict(line.split() for line in events.splitlines())
        return int(counts["oom_kill"])
    except (OSError, ValueError, KeyError):
        return None


def own_cgroup() -> Path:
    """The folder of this process's cgroup, version 2. Raises `OSError` if there is none."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        if line.startswith("0::/"):
            return CGROUP / line.removeprefix("0::/")
    raise FileNotFoundError("no cgroup of version 2")
