"""Owners: which process a temporary file belongs to, so that those of dead processes can be deleted."""

from __future__ import annotations

import os
import shutil
import socket
from contextlib import suppress
from functools import cache, lru_cache
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryFile

from packmule.units import DAY

FORGOTTEN = 1.0 * DAY
"""Seconds after which a file of another machine, which may be gone, belongs to nobody."""


UNKNOWN = "0"
"""When a process started that doesn't say it."""


def owner() -> str:
    """This process, as the name of a file has it: its machine, its number, and when it started."""
    return f"{_machine()}-{_own(os.getpid())}"


def is_dead(owner: str) -> bool:
    """Whether a process of this machine has ended; False for those of other machines, and in doubt."""
    return _is_living(owner) is False


def remove_dead(folder: Path) -> int:
    """Delete the files and folders in `folder` that belong to nobody any more; how many that were.

    The owner is the second part of a name: `5f0c.<owner>.jpg`. Folders whose names have none are left alone.
    """
    count = 0
    with suppress(FileNotFoundError, NotADirectoryError):
        for each in list(folder.iterdir()):
            with suppress(OSError):  # its owner may finish it meanwhile
                named = each.name.partition(".")[2].partition(".")[0]
                living = _is_living(named)
                if living is False or (living is None and _age(each) > FORGOTTEN):
                    if named and each.is_dir() and not each.is_symlink():
                        shutil.rmtree(each)
                    else:
                        each.unlink()
                    count += 1
    return count


def _age(file: Path) -> float:
    """Seconds since `file` changed, by the clock of its file system: ours may be wrong.

    Whoever writes a file may set the time of its content, but not that of its change.
    """
    with TemporaryFile(dir=file.parent) as now:
        return os.fstat(now.fileno()).st_ctime - file.lstat().st_ctime


def _is_living(owner: str) -> bool | None:
    """Whether a process lives; None if that can't be known here."""
    machine, _, process = owner.partition("-")
    number, _, start = process.partition("-")
    if machine != _machine() or not (number.isascii() and number.isdigit()):
        return None
    try:
        found = _start(int(number))
    except OSError:  # such as no descriptor being free
        return None
    if found and UNKNOWN in (found, start):
        return None
    return found == start


@lru_cache(maxsize=1)
def _own(number: int) -> str:
    try:
        return f"{number}-{_start(number) or UNKNOWN}"
    except OSError:
        return f"{number}-{UNKNOWN}"


def _start(number: int) -> str | None:
    """When the process with this number started; None if there is none."""
    try:
        # After the name, which may hold anything, in parentheses.
        fields = Path(f"/proc/{number}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    except (FileNotFoundError, ProcessLookupError):
        pass  # a system may hide other users' processes there, or have no such folder
    try:
        os.kill(number, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except PermissionError:
        pass
    return UNKNOWN


@cache
def _machine() -> str:
    """This boot of this machine, and the space of its processes' numbers, which containers have."""
    found = [socket.gethostname()]
    with suppress(OSError):
        found += [
            Path("/proc/sys/kernel/random/boot_id").read_text(),
            str(Path("/proc/self/ns/pid").readlink()),
        ]
    return sha256(" ".join(found).encode()).hexdigest()[:12]
