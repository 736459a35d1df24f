"""Jobs that the tests of the worker let real processes perform."""

from __future__ import annotations

import asyncio
import ctypes
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

from rq import Retry, get_current_job

from packmule import current, job
from packmule.jobs import context
from packmule.worker.deadlines import LOOK, LOOK_AGAIN_SECONDS


@job
def noop() -> None:
    pass


@job
def add(a: int, b: int = 1) -> int:
    return a + b


@job(retries=2, retry_intervals=(0,))
def fail(path: str) -> None:
    note(path)
    raise ValueError("it is broken")


@job(retries=5, give_up_on=(KeyError,))
def give_up(path: str) -> None:
    note(path)
    raise KeyError("hopeless")


@job
def note(path: str, text: str = "x") -> None:
    with Path(path).open("a") as file:
        file.write(f"{text}\n")


@job
def note_when_told(path: str, gate: str, text: str) -> str:
    note(path, f"begin {text}")
    while not Path(gate).exists():
        time.sleep(0.01)
    note(path, f"end {text}")
    return text


@job
async def wait_until_told(path: str, gate: str, text: str) -> str:
    note(path, f"begin {text}")
    while not Path(gate).exists():
        await asyncio.sleep(0.01)
    return text


@job
def note_until_stopped(path: str, text: str) -> str:
    """Ends when its worker has been told to stop."""
    note(path, f"begin {text}")
    while not context.running().is_draining():
        time.sleep(0.01)
    return text


@job
def overwrite_itself() -> None:
    """Make the record no hash, and of its executions no sorted set."""
    running = get_current_job()
    running.connection.set(running.key, "no hash")
    running.connection.delete(f"rq:executions:{running.id}")
    running.connection.set(f"rq:executions:{running.id}", "no sorted set")


@job
def die(path: str, how: str = "kill") -> None:
    note(path)
    if how == "exit":
        os._exit(0)
    if how == "segfault":
        ctypes.string_at(0)
    os.kill(os.getpid(), signal.SIGKILL)


@job
def die_once(path: str) -> str:
    note(path)
    if len(Path(path).read_text().splitlines()) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return "lived"


@job(isolate=True)
def dies_isolated_once(path: str) -> str:
    return die_once(path)


@job(timeout=1)
def sleep(seconds: float) -> None:
    time.sleep(seconds)


def sleep_on() -> None:
    """Sleep for 30 s, whatever interrupts it."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            time.sleep(end - time.monotonic())
        except BaseException:
            continue


@job(timeout=1)
def stubborn() -> None:
    sleep_on()


@job
def unwritable() -> object:
    return object()


@job
def large() -> str:
    return "x" * 2_000_000


@job
def exits() -> None:
    raise SystemExit(3)


@job
def progress() -> None:
    for done in range(1, 6):
        current.progress(done, 5, f"step {done}")


@job
async def waits(value: int) -> int:
    return value


@job
def parent() -> str:
    return add.enqueue(1, b=1)


def callback(job: object, connection: object, result: object) -> None:
    connection.set("called-back", "yes")


def not_registered() -> None:
    pass


def called_back(*arguments: object) -> None:
    connection: Any = arguments[1]
    connection.rpush("called-back", f"{len(arguments)} arguments")


def again(times: int) -> object:
    return Retry(max=times)


def knows_itself(number: int) -> list[Any]:
    itself = get_current_job()
    itself.meta = {"number": number}
    itself.save_meta()
    return [itself.id, type(itself).__name__, itself.get_status(refresh=False), itself == get_current_job()]


def sleep_long() -> None:
    time.sleep(60)


def clean_up_slowly() -> None:
    """Need longer than until the second signal."""
    try:
        time.sleep(60)
    except BaseException:
        time.sleep(5 * LOOK_AGAIN_SECONDS)
        raise


def sleep_through_a_signal() -> None:
    """Miss the first signal, as a system call does that begins as it arrives."""
    handle = signal.getsignal(LOOK)
    signal.signal(LOOK, lambda *_: signal.signal(LOOK, handle))
    time.sleep(60)


@job(isolate=True)
def sleep_isolated() -> None:
    time.sleep(60)


async def sleep_async() -> None:
    await asyncio.sleep(60)


async def again_async(times: int) -> object:
    return Retry(max=times)


async def knows_itself_async() -> list[Any]:
    itself = get_current_job()
    await asyncio.sleep(0.05)
    return [itself.id, itself is get_current_job()]


@job(isolate=True)
def knows_itself_isolated() -> list[Any]:
    itself = get_current_job()
    return [itself.id, itself is get_current_job()]


def knows_itself_in_a_thread() -> list[Any]:
    itself = get_current_job()
    time.sleep(0.05)
    return [itself.id, itself is get_current_job()]


def out_of_time(job: object, connection: Any, *error: object) -> None:
    time.sleep(2.5)
    connection.set("out-of-time", error[0].__name__)


def terminates_its_child() -> int | None:
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=[5])
    child.start()
    time.sleep(0.2)
    child.terminate()
    child.join()
    return child.exitcode


def cancels_itself() -> str:
    """RQ's own cancel, of a job that runs."""
    get_current_job().cancel()
    return "done"
