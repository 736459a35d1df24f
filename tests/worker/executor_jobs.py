"""Jobs for each executor: plain ones (main thread or threads), async ones and isolated ones."""

from __future__ import annotations

import asyncio
import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from packmule import Retry, current, job
from packmule.jobs import context
from packmule.tests.worker.pool_jobs import note

FOR_EVER = 60


EXECUTORS = {
    "main": ("nap_in_one", "resist", {}),
    "threads": ("nap", "resist", {"threads": 4}),
    "async": ("nap_async", "resist_async", {}),
    "isolated": ("nap_isolated", "resist_isolated", {}),
}
"""Per executor: a job that naps, one that resists its end, and the options of a pool with that executor."""


@job
def where(seconds: float = 0.0) -> list[object]:
    time.sleep(seconds)
    return [os.getpid(), threading.current_thread().name]


@job
async def where_async(seconds: float = 0.0) -> list[object]:
    await asyncio.sleep(seconds)
    return [os.getpid(), threading.current_thread().name]


@job(isolate=True)
def do_nothing_isolated() -> None: ...


@job(isolate=True)
def where_isolated() -> list[object]:
    return [os.getpid(), os.getppid()]


@job
def tell_who(seconds: float) -> str | None:
    current.progress(1, 2, f"I am {current.job_id()}")
    time.sleep(seconds)
    current.progress(2, 2, f"I was {current.job_id()}")
    return current.job_id()


@job
async def tell_who_async(seconds: float) -> str | None:
    current.progress(1, 2, f"I am {current.job_id()}")
    await asyncio.sleep(seconds)
    current.progress(2, 2, f"I was {current.job_id()}")
    return current.job_id()


@job(isolate=True)
def tell_who_isolated(seconds: float) -> str | None:
    current.checkpoint({"at": current.job_id()})
    current.progress(1, 2, f"I was {current.job_id()}")
    time.sleep(seconds)
    return current.job_id()


@job(isolate=True)
def fail_isolated() -> None:
    raise ValueError("broken in its own process")


@job
async def fail_async() -> None:
    raise ValueError("not async either")


@job(isolate=True, max_memory=200_000_000)
def eat_memory(step: int) -> int:
    eaten = []
    while True:
        eaten.append(b"x" * step)


@job(isolate=True, max_cpu=1)
def eat_cpu() -> None:
    while True:
        pass


class _SlowOutput:
    def __init__(self, path: str) -> None:
        self.path = path

    def flush(self) -> None:
        time.sleep(0.2)
        note(self.path, "written")


@job(isolate=True)
def print_slowly(path: str) -> None:
    sys.stdout = _SlowOutput(path)


def _die(how: str) -> None:
    if how == "exit":
        os._exit(0)
    if how == "segfault":
        ctypes.string_at(0)
    os.kill(os.getpid(), signal.SIGKILL)


@job(isolate=True)
def die_isolated(path: str, how: str) -> None:
    note(path, str(os.getppid()))
    _die(how)


@job(isolate=True)
def die_isolated_once(path: str) -> str:
    note(path)
    if len(Path(path).read_text().splitlines()) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return "lived"


@job(isolate=True)
def leave_child() -> int:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid


@job(isolate=True)
def leave_child_and_sleep(path: str) -> None:
    child = subprocess.Popen(["sleep", "60"])
    note(path, f"{os.getpid()} {child.pid}")
    time.sleep(FOR_EVER)


def _nap(path: str) -> None:
    note(path, "begin")
    try:
        time.sleep(FOR_EVER)
    except BaseException as error:
        note(path, type(error).__name__)
        raise


async def _nap_async(path: str) -> None:
    note(path, "begin")
    try:
        await asyncio.sleep(FOR_EVER)
    except BaseException as error:
        note(path, type(error).__name__)
        raise


@job(timeout=1)
def nap(path: str) -> None:
    """Awake often, for a thread hears of its end between two steps in Python only."""
    note(path, "begin")
    try:
        for _ in range(FOR_EVER * 50):
            time.sleep(0.02)
    except BaseException as error:
        note(path, type(error).__name__)
        raise


@job(timeout=1)
def nap_in_one(path: str) -> None:
    _nap(path)


@job(timeout=1)
async def nap_async(path: str) -> None:
    await _nap_async(path)


@job(timeout=1, isolate=True)
def nap_isolated(path: str) -> None:
    _nap(path)


@job(timeout=1)
def hold_on(seconds: float) -> str:
    current.prolong(60)
    for _ in range(round(seconds * 50)):
        time.sleep(0.02)
    return "in time"


@job(timeout=1)
async def hold_on_async(seconds: float) -> str:
    current.prolong(60)
    await asyncio.sleep(seconds)
    return "in time"


@job(timeout=1, isolate=True)
def hold_on_isolated(seconds: float) -> str:
    current.prolong(60)
    time.sleep(seconds)
    return "in time"


@job(timeout=1)
def hold_on_briefly(path: str) -> None:
    current.prolong(2)
    _nap(path)


@job
def keep_the_lock(path: str, gate: str) -> None:
    """Note when a call begins and ends in which the interpreter does nothing else.

    It ends when somebody opens the pipe `gate` to write.
    """
    note(path, "begins")
    ctypes.PyDLL(None).open(gate.encode(), os.O_RDONLY)
    note(path, "ends")


def _resist(how: str) -> None:
    if how == "number":
        sum(range(10**12))
    if how == "regex":
        re.match(r"(a+)+$", "a" * 60 + "b")
    if how == "blocked":
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        time.sleep(FOR_EVER)
    end = time.monotonic() + FOR_EVER
    while time.monotonic() < end:
        try:
            time.sleep(0.1)
        except BaseException:
            continue


@job(timeout=1)
def resist(how: str) -> None:
    _resist(how)


@job(timeout=1)
async def resist_async(how: str) -> None:
    if how != "swallow":
        _resist(how)
    while True:
        try:
            await asyncio.sleep(0.1)
        except BaseException:
            continue


@job(timeout=1, isolate=True)
def resist_isolated(how: str) -> None:
    _resist(how)


@job
async def note_when_told_async(path: str, gate: str, text: str) -> str:
    note(path, f"begin {text}")
    while not Path(gate).exists():
        await asyncio.sleep(0.01)
    note(path, f"end {text}")
    return text


@job(isolate=True)
def note_when_told_isolated(path: str, gate: str, text: str) -> str:
    note(path, f"begin {text}")
    while not Path(gate).exists():
        time.sleep(0.01)
    note(path, f"end {text}")
    return text


@job(retries=5, retry_intervals=(0,), retry_on=(OSError, TimeoutError))
def retry_on(path: str, kind: str) -> None:
    note(path)
    raise {"timeout": TimeoutError, "connection": ConnectionResetError, "value": ValueError}[kind]("no")


@job
def retry_after(path: str, limit: int, until: int) -> str:
    note(path)
    attempt = len(Path(path).read_text().splitlines())
    if attempt < until:
        raise Retry(reason=f"not ready in {attempt}", limit=limit)
    return f"ready in {attempt}"


@job
def retry_later() -> None:
    raise Retry(after=30, reason="not yet")


@job(retries=1, retry_intervals=(7,))
def fail_once_in_a_while() -> None:
    raise ValueError("no")


def _count(path: str, how: str, total: int) -> int:
    """Note each number, and be interrupted after the third where that was not yet."""
    first = current.resume(0)
    note(path, f"from {first}")
    for number in range(first, total):
        note(path, str(number))
        current.checkpoint(number + 1)
        if number == 2 and first == 0:
            if how == "raise":
                raise ValueError("in the midst")
            if how == "kill":
                time.sleep(1.1)
                current.checkpoint(number + 1)
                os.kill(os.getpid(), signal.SIGKILL)
            while how == "drain":
                current.checkpoint(number + 1)
                time.sleep(0.02)
    return total


@job(retries=2, retry_intervals=(0,))
def count(path: str, how: str, total: int = 6) -> int:
    return _count(path, how, total)


@job(isolate=True, retries=2, retry_intervals=(0,))
def count_isolated(path: str, how: str, total: int = 6) -> int:
    return _count(path, how, total)


@job(retries=2, retry_intervals=(0,))
async def count_async(path: str, how: str, total: int = 6) -> int:
    first = current.resume(0)
    note(path, f"from {first}")
    for number in range(first, total):
        note(path, str(number))
        current.checkpoint(number + 1)
        while how == "drain" and number == 2 and first == 0:
            current.checkpoint(number + 1)
            await asyncio.sleep(0.02)
    return total


@job
def fork_and_return(path: str) -> str:
    note(path)
    os.fork()
    return "done"


@job
def die_once_with_a_child_left(path: str) -> str:
    note(path)
    if len(Path(path).read_text().splitlines()) > 1:
        return "lived"
    if (child := os.fork()) == 0:
        time.sleep(FOR_EVER)  # with all sockets of the worker in its hands
        os._exit(0)
    note(f"{path} child", str(child))
    os.kill(os.getpid(), signal.SIGKILL)
    return ""


@job
def grow(size: int) -> int:
    """What is allocated here is never given back."""
    _grown.append(b"x" * size)
    return os.getpid()


@job
def grow_and_stay(size: int) -> int:
    grown = b"x" * size
    time.sleep(FOR_EVER)
    return len(grown)


_grown: list[bytes] = []


@job
def enter(path: str, text: str) -> None:
    time.sleep(0.005)
    note(path, text)


@job
async def enter_async(path: str, text: str) -> None:
    await asyncio.sleep(0.005)
    current.progress(1)
    note(path, text)


@job(isolate=True)
def enter_isolated(path: str, text: str) -> None:
    current.checkpoint(1)
    note(path, text)


@job(isolate=True)
def die_once_when_told(path: str, gate: str) -> str:
    note(path)
    while not Path(gate).exists():
        time.sleep(0.01)
    if len(Path(path).read_text().splitlines()) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return "lived"


def _start_and_wait(path: str, how: str) -> None:
    child = subprocess.Popen(["sleep", "600"], start_new_session=how == "swallow")
    note(path, str(child.pid))
    while True:
        try:
            child.wait(0.05)  # a thread is interrupted between two steps in Python only
        except subprocess.TimeoutExpired:
            continue
        except BaseException:
            if how != "swallow":
                raise


@job
def start_and_leave(path: str) -> None:
    child = subprocess.Popen(["sleep", "600"])
    note(path, str(child.pid))


@job(timeout=1)
def start_and_wait(path: str, how: str) -> None:
    _start_and_wait(path, how)


@job(timeout=1, isolate=True)
def start_and_wait_isolated(path: str, how: str) -> None:
    _start_and_wait(path, how)


@job(isolate=True, timeout=1)
def report_while_saving() -> None:
    running = context.running()
    is_over = threading.Event()

    def report() -> None:
        while not is_over.is_set():
            running.report(1, 2, "reporting")

    thread = threading.Thread(target=report)
    thread.start()
    try:
        while True:
            running.save(b"[" + b" " * 200_000 + b"]")
    finally:
        is_over.set()
        thread.join()
