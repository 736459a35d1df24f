"""The project: the folder of a user's code, found from any folder below it, as git finds a repository."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

DATA = ".packmule"
"""The folder of the embedded server and the files of jobs, which marks a project's root."""


def root() -> Path | None:
    """The nearest folder from the working directory upwards that has a folder DATA; None without one.

    Above the working directory, only a folder of this user counts, and the search ends before the home
    directory and at a folder in which everybody may write: others could have put one there.
    """
    try:
        here = Path.cwd()
        if (here / DATA).is_dir():
            return here
        for folder in here.parents:
            status = folder.stat()
            if folder in (Path.home(), folder.parent) or status.st_mode & stat.S_IWOTH:
                return None
            data = folder / DATA
            if data.is_dir() and data.stat().st_uid == status.st_uid == os.geteuid():
                return folder
    except (OSError, RuntimeError):  # the working directory is gone, or there is no home
        pass
    return None


def data_dir() -> Path:
    """Where the embedded server of this folder's project is: relative if it is here, or will be."""
    found = root()
    return Path(DATA) if found is None or found == Path.cwd() else found / DATA


def let_import() -> None:
    """Let this process import modules of the working directory, after everything installed."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
