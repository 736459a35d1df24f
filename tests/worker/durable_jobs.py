"""Jobs of the durable work's fault run: steps, waits and nodes of flows, each effect a line of a ledger."""

from __future__ import annotations

import os
import time
from pathlib import Path

from packmule import current, job


def did(place: str, case: str, what: str) -> str:
    """Enter an effect in the ledger."""
    # One short write to a file opened for appending is there whole or not at all, whoever is killed.
    # An isolated job dies with its worker, its parent.
    line = f"{case} {what} {os.getpid()} {os.getppid()} {time.monotonic():.6f}\n"
    ledger = os.open(Path(place) / "ledger", os.O_WRONLY | os.O_APPEND)
    os.write(ledger, line.encode())
    os.close(ledger)
    return what


def did_slowly(place: str, case: str, what: str) -> str:
    """Enter an effect behind its beginning, so that a fault can strike between."""
    did(place, case, f"{what}ing")
    time.sleep(0.1)
    return did(place, case, what)


async def did_async(place: str, case: str, what: str) -> str:
    return did(place, case, what)


@job(timeout=30)
def order(place: str, case: str) -> list[int]:
    return _order(place, case)


@job(timeout=30, isolate=True)
def order_isolated(place: str, case: str) -> list[int]:
    return _order(place, case)


@job(timeout=30, singleton="{key}")
def order_alone(place: str, case: str, key: str) -> list[int]:
    return _order(place, case)


@job(timeout=30)
async def order_async(place: str, case: str) -> list[int]:
    await current.step("pay", did_async, place, case, "pay")
    await current.step("pack", did_async, place, case, "pack")
    current.sleep(0.2)
    first = current.wait_for("go")
    second = current.wait_for("go", timeout=600)
    await current.step.options(if_unknown="fail")("ship", did_async, place, case, "ship")
    return [first, second]


def _order(place: str, case: str) -> list[int]:
    current.step("pay", did_slowly, place, case, "pay")
    current.step("pack", did, place, case, "pack")
    current.sleep(0.2)
    first = current.wait_for("go")
    second = current.wait_for("go", timeout=600)
    current.step.options(if_unknown="fail")("ship", did, place, case, "ship")
    return [first, second]


@job(timeout=30)
def node(place: str, case: str, name: str, seconds: float, taken: list[str] | None = None) -> str:
    """A node of a flow, which enters what it took from those in front of it."""
    did(place, case, f"begin:{name}:{','.join(taken or [])}")
    time.sleep(seconds)
    did(place, case, f"end:{name}")
    return name


@job(timeout=30)
def failing(place: str, case: str, name: str) -> None:
    did(place, case, f"begin:{name}:")
    raise ValueError(name)


@job(timeout=30)
def sleeper(seconds: float) -> float:
    """How many seconds later than it asked for it woke up."""
    due = current.step("due", lambda: time.time() + seconds)
    current.sleep(seconds)
    return time.time() - due
