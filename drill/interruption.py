"""Ctrl-C and SIGTERM in a drill: held back where they would leave a process or a key behind."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def held_back() -> Iterator[Callable[[], None]]:
    """Hold both back to the end of the block; what this yields lets them through when it is called.

    While a process is being started, or what was started is cleaned up, an exception would forget it.

    >>> with held_back() as let_through:  # doctest: +SKIP
    ...     processes.append(start())
    ...     let_through()
    """
    came: list[tuple[int, FrameType | None]] = []
    usual = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}

    def let_through() -> None:
        while came:
            signum, frame = came.pop(0)
            handler = usual[signal.Signals(signum)]
            if callable(handler):
                handler(signum, frame)

    held = [signum for signum, handler in usual.items() if callable(handler)]  # others ignore or end all
    for signum in held:
        signal.signal(signum, lambda signum, frame: came.append((signum, frame)))
    try:
        yield let_through
    finally:
        for signum in held:
            signal.signal(signum, usual[signum])
    let_through()
