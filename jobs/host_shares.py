"""Shares of what one machine has: processes take some, and the kernel frees those of dead ones."""

from __future__ import annotations

import fcntl
import logging
import os
import stat
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile, gettempdir

from packmule.jobs import context, current
from packmule.jobs.interrupts import Interrupted
from packmule.units import MIB

UNITS = 256
"""Into how many shares memory is divided."""

LOOK_SECONDS = 0.05

log = logging.getLogger("packmule.shares")


class Shares:
    """`count` shares, each a lock on a byte of the descriptor `file`, from the byte `first` on.

    A process that dies gives its own back, however it dies. Those that it forks have none of them.
    """

    def __init__(self, file: int, count: int, first: int = 0) -> None:
        self._file = file
        self._all = range(first, first + count)
        self._held: list[int] = []

    @classmethod
    def of_pool(cls, count: int) -> Shares:
        """Shares for this process and those that it forks."""
        with TemporaryFile() as file:
            return cls(os.dup(file.fileno()), count)

    def take(self, number: int = 1) -> bool:
        """Take so many, or none if fewer are free. This process must hold none."""
        for each in self._all:
            with suppress(BlockingIOError, PermissionError):  # another process holds it
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, each)
                self._held.append(each)
                if len(self._held) == number:
                    return True
        self.give_back()
        return False

    def give_back(self, keep: int = 0) -> None:
        """Give back what this process holds, but for `keep`."""
        while len(self._held) > keep:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, self._held.pop())

    @property
    def held(self) -> int:
        """How many this process holds."""
        return len(self._held)

    @property
    def has_free(self) -> bool:
        """Whether this process, which holds none, could take one."""
        is_free = self.take()
        self.give_back()
        return is_free


class HostMemory:
    """`most` bytes of memory that isolated jobs share, in all pools of one machine and user.

    It is lent to jobs, each of which says what it takes. A process performs one job at a time with it. The
    locks are those of a file in `folder`, by default the system's for temporary ones.
    """

    def __init__(self, most: int, folder: Path | None = None) -> None:
        self.most = most
        self._path = (folder or Path(gettempdir())) / f"packmule-memory-{os.geteuid()}"
        self._file = -1
        self._shares: Shares | None = None

    def take(self, size: int) -> None:
        """Take `size` bytes in place of those that the job has; wait until they are free.

        A job of more than all takes all. One that has enough doesn't wait; one that needs more has none
        meanwhile, so it must not use what it had. Whoever waits longest isn't passed over by smaller ones.
        Raises `Interrupted` if the worker is stopping.
        """
        number = min(UNITS, size * UNITS // self.most + 1)
        if self._shares and self._shares.held >= number:
            self._shares.give_back(keep=number)
            return
        self.give_back()
        try:
            self._file = _own_file(self._path)
            self._shares = self._waited_for(number, size)
        except OSError as error:
            log.warning("%s: memory isn't shared out: %s", self._path, error)

    def give_back(self) -> None:
        """Give back what the job has."""
        if self._file >= 0:
            os.close(self._file)  # and all its locks are gone
            self._file, self._shares = -1, None

    def _waited_for(self, number: int, size: int) -> Shares:
        # Whoever has the turn collects what comes free, and the others wait behind.
        shares, turn = Shares(self._file, UNITS), Shares(self._file, 1, first=UNITS)
        has_turn = has_said = False
        while not (has_turn := has_turn or turn.take()) or not shares.take(number):
            job = context.running()
            if job and job.is_draining():
                raise Interrupted
            if not has_said:
                has_said = True
                current.progress(0, None, f"waits for {size // MIB:,} MiB of this machine's memory")
            time.sleep(LOOK_SECONDS)
        turn.give_back()
        return shares


def _own_file(path: Path) -> int:
    """A descriptor of the file, which only this user can open. Raises `OSError`."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    found = os.fstat(file)
    if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid():
        return file
    os.close(file)
    raise PermissionError("it is not a file of this user")
