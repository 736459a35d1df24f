"""Imports: other threads end theirs before a process is forked, for the fork would wait for them forever."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

PATIENCE = 1.0
"""Seconds to wait at most: a module may block, or import something slow."""
LOOK_AGAIN = 0.002
MACHINERY = "<frozen importlib._bootstrap>"


def await_imports(patience: float = PATIENCE) -> None:
    """Wait until no other thread imports a module.

    A module that is being imported is locked. A fork inherits that lock without the thread that would
    release it, so a job that imports the module there would hang until its timeout.
    """
    ends = time.monotonic() + patience
    while _others_import() and time.monotonic() < ends:
        time.sleep(LOOK_AGAIN)


def _others_import() -> bool:
    own = threading.get_ident()
    stacks = sys._current_frames()
    return any(
        frame.f_code.co_filename == MACHINERY
        for thread, top in stacks.items()
        if thread != own
        for frame in _frames(top)
    )


def _frames(top: FrameType) -> Iterator[FrameType]:
    frame: FrameType | None = top
    while frame is not None:
        yield frame
        frame = frame.f_back
