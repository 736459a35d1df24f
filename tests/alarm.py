"""Signals that interrupt the main thread, as a worker interrupts a job that exceeds its timeout."""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def taken(signum: int, ring: Callable[[], object]) -> Iterator[None]:
    """Call `ring`, which may raise, for each signal `signum` until the block ends.

    No garbage is collected meanwhile: Python drops what is raised in a callback of the collector, and
    Hypothesis has such a callback.
    """
    before = signal.signal(signum, lambda *_: ring())
    gc.disable()
    try:
        yield
    finally:
        signal.signal(signum, before)
        gc.enable()


@contextmanager
def alarm(after: float, ring: Callable[[], object]) -> Iterator[None]:
    """Call `ring`, which may raise, `after` some seconds unless the block has ended before."""
    with taken(signal.SIGALRM, ring):
        try:
            signal.setitimer(signal.ITIMER_REAL, after)
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
