"""Sealing: a process that reads what strangers sent leaves the network, where the kernel lets it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
from pathlib import Path

from packmule.config import child_environment
from packmule.jobs import context

_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000
_unshare = ctypes.CDLL(None).unshare if sys.platform == "linux" else None
_TRY = "import sys; from packmule.jobs.sealing import leave_network; sys.exit(not leave_network())"


def seal() -> bool:
    """Leave the network for good, unless something that is lent to jobs needs it; whether that was done.

    What needs a connection gets it before.
    """
    lent = context.resources.values()
    if any(getattr(each, "needs_network", False) for each in lent):
        return False
    for each in lent:
        if callable(connecting := getattr(each, "connect_before_isolation", None)):
            connecting()
    return leave_network()


def leave_network() -> bool:
    """Move this process, which has one thread, to a network without interfaces; whether the kernel lets it.

    Connections that it has stay, and so do unix sockets, which are files.
    """
    if _unshare is None:
        return False
    if _unshare(_NEW_NETWORK) == 0:  # it is privileged
        return True
    user, group = os.geteuid(), os.getegid()
    if _unshare(_NEW_USER | _NEW_NETWORK):
        return False
    with contextlib.suppress(OSError):  # without names it is nobody, with the same rights to files
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    return True


def is_possible() -> bool:
    """Whether processes of this user may leave their network on this machine; another process tries it."""
    command = [sys.executable, "-P", "-c", _TRY]
    environment = child_environment(PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
    tried = subprocess.run(command, check=False, env=environment, capture_output=True)  # noqa: S603  it is ours
    return tried.returncode == 0
