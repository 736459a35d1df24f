"""Temporary folders, named for the process that makes them, and the removal of what dead ones left behind."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from packmule.jobs import context
from packmule.jobs.storage.owners import is_dead, owner

PREFIX = "packmule-"
LOOK_SECONDS = 3600.0

log = logging.getLogger("packmule.storage")


@contextmanager
def folder() -> Iterator[Path]:
    """A private folder on this host, removed at the end, or by `remove_folders` if the process dies."""
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{owner()}.") as name:
        yield Path(name)


def remove_folders(inside: Path) -> int:
    """Remove the folders that dead processes of this host and user left; how many there were."""
    count = 0
    for each in list(inside.glob(f"{PREFIX}*.*")):
        with suppress(OSError):
            is_ours = each.lstat().st_uid == os.geteuid()
            if is_ours and is_dead(each.name.removeprefix(PREFIX).partition(".")[0]):
                shutil.rmtree(each)  # which refuses a link
                count += 1
    return count


class Remover:
    """Removes in a thread what dead processes left: their folders, and what `remove_more` finds.

    It does so once an hour, and whenever somebody knows of a process that died.
    """

    def __init__(self, remove_more: Callable[[], int]) -> None:
        # What `tempfile` makes at its first use is under a lock, which a process forked then would wait for.
        tempfile.TemporaryFile().close()
        self._remove_more = remove_more
        self._wanted = threading.Event()
        self._process = 0

    def soon(self) -> None:
        """Do it now, without waiting for it."""
        if self._process != os.getpid():  # threads don't survive a fork
            self._process, self._wanted = os.getpid(), threading.Event()
            threading.Thread(target=self._run, args=[self._wanted], name="remover", daemon=True).start()
        self._wanted.set()

    def _run(self, wanted: threading.Event) -> None:
        while True:
            wanted.wait(LOOK_SECONDS)
            wanted.clear()
            try:
                count = remove_folders(Path(tempfile.gettempdir())) + self._remove_more()
            except Exception as error:
                log.warning("what dead processes left can't be removed: %s", error)
            else:
                if count:
                    log.info("removed %d temporary files and folders of dead processes", count)


def remove_soon() -> None:
    """Let the `Remover` that is lent to this process's jobs, if any, do its work now."""
    if isinstance(remover := context.resources.get(Remover), Remover):
        remover.soon()
