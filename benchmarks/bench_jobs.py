"""No-op jobs for the throughput benchmark, importable by every worker process."""

from __future__ import annotations

import logging
import statistics
import time

from packmule import current, job


@job
def noop() -> None:
    pass


@job
def stamp() -> float:
    return time.time()


@job
def free(key: int) -> None:
    pass


@job(rate="10000/s burst 100000")
def rated(key: int) -> None:
    pass


@job(rate="10000/s burst 100000 by {key}")
def rated_by_key(key: int) -> None:
    pass


@job(concurrency=100_000)
def slotted(key: int) -> None:
    pass


@job(fair="{key}")
def fair(key: int) -> None:
    pass


@job(queue="low", rate="1/h burst 1 by {key}")
def seldom(key: int) -> None:
    pass


@job
def paced(calls: int) -> dict[str, float]:
    """Microseconds for a checkpoint and for a step, each called so often: the medians of the calls."""
    found = {}
    for name, once in (
        ("checkpoint", current.checkpoint),
        ("step", lambda number: current.step(f"step {number}", int)),
    ):
        took = []
        for number in range(calls):
            began = time.perf_counter()
            once(number)
            took.append(time.perf_counter() - began)
        found[name] = statistics.median(took) * 1e6
    return found


@job
def sleeping() -> None:
    current.sleep(days=3)


@job
def talking(lines: int) -> dict[str, float]:
    """Microseconds of processor time for a line of its log, with the thread that sends it."""
    return _talked(lines)


@job(isolate=True)
def talking_isolated(lines: int) -> dict[str, float]:
    return _talked(lines)


class Dropping(logging.Handler):
    """What `logging` itself costs: it drops its records."""

    def handle(self, record: logging.LogRecord) -> bool:
        return False


def _talked(lines: int) -> dict[str, float]:
    log, dropping = logging.getLogger("bench"), logging.getLogger("bench.dropping")
    dropping.propagate, dropping.handlers = False, [Dropping()]
    found = {}
    for name, once in (
        ("current.log", lambda number: current.log("a line of text")),
        ("with a field", lambda number: current.log("a line of text", number=number)),
        ("by logging", lambda number: log.info("a line of text: %s", number)),
        ("by logging, dropped", lambda number: dropping.info("a line of text: %s", number)),
        ("current.emit", lambda number: current.emit("word ")),
    ):
        began = time.process_time()
        for number in range(lines):
            once(number)
        found[name] = (time.process_time() - began) / lines * 1e6
    return found


@job
def speaking(chunks: int, pause: float) -> None:
    for _ in range(chunks):
        current.emit(time.time())
        time.sleep(pause)
