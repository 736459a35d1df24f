"""Jobs that say something, for the tests of what is kept of it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from contextlib import suppress
from contextvars import copy_context
from pathlib import Path

from packmule import current, job
from packmule.tests.worker.pool_jobs import note

log = logging.getLogger("shop")


class Odd:
    """A value that has no text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


@job
def talk(lines: int = 2, chunks: int = 0) -> None:
    for number in range(lines):
        current.log(f"line {number}", number=number)
    for number in range(chunks):
        current.emit(f"chunk {number} ")


@job(isolate=True)
def talk_isolated(lines: int = 2, chunks: int = 0, dies: bool = False) -> None:
    talk(lines, chunks)
    if dies and current.job_id():
        os.kill(os.getpid(), signal.SIGKILL)


@job
async def talk_async(name: str) -> None:
    current.log(f"{name} begins")
    await asyncio.sleep(0)
    log.info("%s ends", name)
    current.emit(name)


@job
def talk_in_a_thread() -> None:
    other = threading.Thread(target=copy_context().run, args=(current.log, "from a thread"))
    other.start()
    other.join()


@job
def log_all() -> None:
    log.debug("not kept")
    log.info("by logging: %s", 1)
    log.warning("it doesn't fit: %s %s", 1)  # noqa: PLE1206
    log.info("%s", Odd())
    logging.getLogger("packmule.worker").info("not the job's")
    try:
        raise ValueError("no such month")  # noqa: TRY301
    except ValueError:
        log.exception("it failed")


@job(retries=2, retry_intervals=(0,))
def fail_twice(path: str) -> None:
    note(path)
    current.log(f"run {len(Path(path).read_text().splitlines())}", "warning")
    if len(Path(path).read_text().splitlines()) <= 2:
        raise ValueError("not yet")


@job(retries=1, retry_intervals=(0,))
def talk_once(path: str) -> None:
    if not Path(path).exists():
        note(path)
        current.log("only once")
        raise ValueError("not yet")


@job
def talk_until_told(gate: str, path: str = "") -> None:
    current.log("begins")
    current.emit("begins")
    if path:
        note(path)
    while not Path(gate).exists():
        time.sleep(0.01)
    current.log("ends")
    current.emit("ends")


@job(timeout=1)
def talk_too_long() -> None:
    current.log("too long")
    time.sleep(60)


@job(isolate=True)
def speak_until_killed(path: str) -> None:
    """Ignores what interrupts it, and notes each line that it has logged."""
    with Path(path).open("wb", buffering=0) as file:
        while True:
            with suppress(BaseException):
                while True:
                    current.log("x" * 1000)
                    file.write(b"x\n")


@job
def talk_and_quit(path: str) -> None:
    """Its process dies after the line has left it."""
    current.log("before the death")
    if not Path(path).exists():
        note(path)
        time.sleep(1.5)
        os.kill(os.getpid(), signal.SIGKILL)


@job
def count(lines: int) -> None:
    run = os.urandom(4).hex()
    for number in range(lines):
        current.log(f"{run} {number}")
        current.emit(number)
        time.sleep(0.002)
