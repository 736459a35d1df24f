"""Jobs and RQ callbacks whose calls can be counted, in a list `calls` of the server."""

from __future__ import annotations

import os
import signal
import time
import zlib
from typing import Any

from rq import get_current_job

from packmule import current, job
from packmule.jobs import registry
from packmule.tests.worker.pool_jobs import sleep_on


def note(connection: Any, text: str) -> int:
    return connection.rpush("calls", text)


def note_here(text: str) -> int:
    return note(get_current_job().connection, text)


@job
def body(value: int = 1) -> int:
    note_here("body")
    return value


@job
def fails() -> None:
    note_here("body")
    raise KeyError("no such thing")


@job
def dies_once() -> int:
    if note_here("body") == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return 1


@job(isolate=True, max_memory=200 * 1024 * 1024)
def isolated(size: int) -> int:
    note_here("body")
    return len(bytearray(size))


@job(isolate=True, max_cpu=1)
def busy() -> None:
    while True:
        pass


@job
def slow(seconds: float) -> None:
    note_here("body")
    time.sleep(seconds)


@job
def stubborn() -> None:
    note_here("body")
    sleep_on()


@job(singleton=True)
def single() -> int | None:
    note_here("body")
    return current.fence()


@job(concurrency=1)
def limited() -> None:
    running = get_current_job().connection.incr("running")
    note_here(f"body {running}")
    time.sleep(0.05)
    get_current_job().connection.decr("running")


@job
def rewrites_itself(path: str) -> None:
    """Name another function in the own record, and another callback."""
    evil = zlib.compress(f'["os.system", null, ["touch {path}"], {{}}]'.encode())
    itself = get_current_job()
    itself.connection.hset(itself.key, mapping={"data": evil, "success_callback_name": "os.system"})


@job
def large() -> str:
    return "x" * 2_000_000


@job
async def waits() -> int:
    get_current_job().connection.rpush("calls", "body")
    return 7


def write(path: str, text: str) -> None:
    """Append a line at once, whole."""
    file = os.open(path, os.O_APPEND | os.O_CREAT | os.O_WRONLY)
    os.write(file, f"{text} {get_current_job().id}\n".encode())
    os.close(file)


@job
def plain_under_fire(path: str) -> int:
    write(path, "body")
    time.sleep(0.02)
    return 1


@job(singleton="{path}")
def single_under_fire(path: str) -> int | None:
    write(path, "begin")
    time.sleep(0.02)
    write(path, "body")
    return 1


@job(concurrency=2)
def limited_under_fire(path: str) -> int:
    write(path, "body")
    time.sleep(0.02)
    return 1


@job(isolate=True)
def isolated_under_fire(path: str) -> int:
    write(path, "body")
    return 1


@job(retry_intervals=(0,))
def retried_under_fire(path: str) -> int:
    write(path, "body")
    raise ValueError("never well")


def noted(itself: Any, connection: Any, *about: Any) -> None:
    write(itself.args[0], "callback")
    time.sleep(0.01)


def succeeded(job: Any, connection: Any, result: object) -> None:
    note(connection, f"success {result} {job.get_status(refresh=False).value}")


def failed(job: Any, connection: Any, kind: type, value: BaseException, traceback: object) -> None:
    note(connection, f"failure {kind.__name__} {value}")


def stopped(job: Any, connection: Any) -> None:
    note(connection, "stopped")


@job(isolate=True, max_memory=200 * 1024 * 1024)
def fills_memory(itself: object, connection: object, result: object) -> None:
    note(connection, "fills")
    note(connection, f"filled {len(bytearray(500 * 1024 * 1024))}")


def says_so(job: Any, connection: Any, result: object) -> None:
    current.log("called back")


async def succeeded_async(job: Any, connection: Any, result: object) -> None:
    note(connection, f"success {result}")


def dies_once_after(job: Any, connection: Any, result: object) -> None:
    if note(connection, "success") == 2:
        os.kill(os.getpid(), signal.SIGKILL)


def dies_always(job: Any, connection: Any, result: object) -> None:
    note(connection, "success")
    os.kill(os.getpid(), signal.SIGKILL)


def raises(job: Any, connection: Any, result: object) -> None:
    note(connection, "success")
    raise ValueError("a broken callback")


def sleeps(job: Any, connection: Any, result: object) -> None:
    note(connection, "success")
    time.sleep(30)


def reads_the_call(job: Any, connection: Any, result: object) -> None:
    note(connection, f"{job.func_name} {job.args}")


CALLBACKS = (
    "succeeded failed stopped says_so succeeded_async dies_once_after dies_always raises sleeps "
    "reads_the_call noted"
)
registry.load([], [f"{__name__}.{name}" for name in CALLBACKS.split()])
