"""Trust: whether only this user, and root, can write to a folder."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path


def distrusted(folder: Path) -> str | None:
    """Why others can change what is in `folder`; None if they can't, or if there is no such folder."""
    try:
        found = folder.stat()
    except OSError:
        return None
    user = os.getuid()
    if found.st_uid not in (user, 0):
        owner = _name(found.st_uid)
        return f"it belongs to user {owner}, who can change what is in it: run chown {_name(user)} {folder}"
    # Root's folder may be writable by a group: this user could not write to it otherwise.
    shared = stat.S_IWOTH if found.st_uid != user else stat.S_IWOTH | stat.S_IWGRP
    return f"others can write to it: run chmod go-w {folder}" if found.st_mode & shared else None


def is_private(folder: Path) -> bool:
    """Whether `folder` is this user's alone, and no link to another."""
    found = folder.lstat()
    return (found.st_mode, found.st_uid) == (0o040700, os.getuid())


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)
