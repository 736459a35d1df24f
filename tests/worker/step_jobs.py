"""Jobs with steps, sleeps and waits, for tests."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

from packmule import current, job


def note(path: str, text: str) -> str:
    """Write a line, and return it."""
    with Path(path).open("a") as file:
        file.write(f"{text}\n")
    return text


def die_once(path: str, text: str) -> str:
    """Note a line; the first time it kills its process."""
    note(path, text)
    if Path(path).read_text().count(f"{text}\n") == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return text


@job(retries=3, retry_intervals=[0])
def order(path: str, ends: str = "") -> list[Any]:
    """Three steps; between the second and the third, the first run ends in this way."""
    note(path, "body")
    paid = current.step("pay", note, path, "pay")
    packed = current.step("pack", note, path, "pack")
    if ends and Path(path).read_text().count("body") == 1:
        if ends == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise ValueError(ends)
    return [paid, packed, current.step("send", note, path, "send")]


@job
def dies_in_a_step(path: str, policy: Any = "again") -> str:
    note(path, "body")
    return current.step.options(if_unknown=policy)("charge", die_once, path, "charge")


@job
def sleeps(path: str, seconds: float = 0.0) -> float:
    note(path, "body")
    began = current.step("begin", time.time)
    current.sleep(seconds)
    return time.time() - began


@job
def waits(path: str, timeout: float | None = None) -> Any:
    note(path, "body")
    current.step("ask", note, path, "ask")
    return current.wait_for("approved", timeout)


@job
async def waits_async(path: str) -> Any:
    note(path, "body")
    asked = await asyncio.gather(
        *(current.step(name, asyncio.to_thread, note, path, name) for name in ("a", "b", "c"))
    )
    return [asked, current.wait_for("approved")]


@job(isolate=True)
def waits_isolated(path: str) -> Any:
    note(path, "body")
    current.step("ask", note, path, "ask")
    return current.wait_for("approved")


bodies: list[Any] = []
"""What `flow` and its like do in each run of a test: the first, until the test changes it."""


@job(retries=3, retry_intervals=[0])
def flow() -> Any:
    return bodies[0]()


@job(retries=3, retry_intervals=[0])
async def flow_async() -> Any:
    return await bodies[0]()


@job(version=1)
def pinned() -> Any:
    return bodies[0]()


@job(singleton=True, singleton_policy="replace")
def replacing(number: int) -> Any:
    return bodies[0]()


@job(concurrency=1, rate="1/h burst 2")
def limited() -> Any:
    return bodies[0]()


@job
def waits_at_a_gate(path: str, gate: str) -> list[str]:
    """Two steps; the first goes on until the gate is there."""
    note(path, "body")

    def first() -> str:
        note(path, "begin")
        while not Path(gate).exists():
            time.sleep(0.005)
        return note(path, "first")

    return [current.step("first", first), current.step("second", note, path, "second")]


@job(isolate=True)
def dies_isolated_in_a_step(path: str) -> str:
    return current.step.options(if_unknown="fail")("charge", die_once, path, "charge")


@job
def many_steps(path: str, steps: int) -> int:
    """Steps with a sleep and a wait among them; each notes its number."""

    def one(number: int) -> int:
        note(path, str(number))
        time.sleep(0.004)
        return number

    for number in range(steps):
        assert current.step(f"step {number}", one, number) == number
        if number == steps // 3:
            current.sleep(0.05)
        if number == steps // 2:
            assert current.wait_for("go") == "on"
    return steps


@job
def called_back(*arguments: Any) -> None:
    current.step("callback", int)
