"""What tests may not leave behind: a folder of data in the checkout, or a process."""

from __future__ import annotations

import os
import time
from pathlib import Path

from packmule.project import DATA

DATA_HERE = Path(__file__).parents[1] / DATA
MARK = "PYTEST_OF_PACKMULE"
"""A variable that every process inherits from the run of tests that started it."""

LEAVING_SECONDS = 30.0
"""How long processes that were told to end may take."""


def mark() -> None:
    """Mark what this process starts from now on."""
    os.environ[MARK] = str(os.getpid())


def processes_left() -> list[str]:
    """The processes with this process's mark that don't end, after some time for those that do.

    This process's own children are not counted, for some end with it: those of xdist have ended by then.
    """
    deadline = time.monotonic() + LEAVING_SECONDS
    while (found := _marked()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def _marked() -> list[str]:
    wanted, found = f"{MARK}={os.environ[MARK]}".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "stat").read_text().rpartition(")")[2].split()
            if wanted in (folder / "environ").read_bytes().split(b"\0") and int(status[1]) != os.getpid():
                words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found.append(f"process {folder.name}: {words[:300]}")
        except OSError:
            continue  # it has ended, or is somebody else's
    return found
