"""The one function of psutil that RQ's suite calls, so that it needs no installing."""

from pathlib import Path


def pid_exists(pid: int) -> bool:
    """Whether there is a process with this id."""
    return Path(f"/proc/{pid}").exists()
