"""Time in tests: how much slower this machine works than alone, and a host whose clock is wrong."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

WORK = 0.002
REST = 0.02


@contextmanager
def skewed(seconds: float) -> Iterator[None]:
    """Let this process's clock show another time than the server's."""
    with pytest.MonkeyPatch.context() as patch:
        now = time.time
        patch.setattr(time, "time", lambda: now() + seconds)
        yield


@contextmanager
def pace() -> Iterator[Callable[[], float]]:
    """Yield a function that returns a second as long as this machine has made it since: 1.0 or more.

    Processor time is bought in small pieces meanwhile; what they cost in time is the measure. On a machine
    that has nothing else to do, a bound of two paces is two seconds.

    >>> with pace() as second:
    ...     took = 0.1
    ...     assert took < 2 * second()
    """
    costs: list[float] = []
    over = threading.Event()

    def work() -> None:
        while not over.wait(REST):
            begun, used = time.monotonic(), time.thread_time()
            while time.thread_time() - used < WORK:
                pass
            costs.append((time.monotonic() - begun) / WORK)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield lambda: max(1.0, sum(costs) / len(costs)) if costs else 1.0
    finally:
        over.set()
        worker.join()
