"""Jobs that misbehave."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Annotated

import msgspec
from pydantic import BaseModel, field_validator

from packmule import job


@job
def recurse(depth: int = 0) -> int:
    return recurse(depth + 1) + 1


@job
def return_much() -> str:
    return "x" * 200_000_000


@job
def return_nan() -> dict[str, float | None]:
    return {"mean": float("nan"), "none": None}


@job
def return_infinity() -> list[float]:
    return [1.0, float("-inf")]


@job
def return_nothing_of_it() -> list[float | str | None]:
    return [1.0, None, "null", float(1)]


@job
def return_itself() -> list[object]:
    held: list[object] = []
    held.append(held)
    return held


@job
def chatter() -> str:
    for _ in range(40):
        sys.stdout.write("x" * 100_000 + "\n")
    return "said"


@job
def unspeakable() -> None:
    raise ValueError("\udcff is no UTF-8" * 10_000)


@job
def odd_error() -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise RuntimeError("not even its text")

    raise Odd


def _connects(how: str = "") -> bool:
    """Says of a call whether it may connect, or breaks as the call says."""
    if how == "raise":
        raise LookupError("no such host")
    return False


@job(isolate=True, network=_connects)
def maybe_connect(how: str = "") -> str:
    return how


class Odd(BaseModel):
    """A model whose validator does what a call asks for."""

    how: str

    @field_validator("how")
    @classmethod
    def obey(cls, how: str) -> str:
        match how:
            case "raise":
                raise LookupError("not there")
            case "exit":
                sys.exit(3)
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hang":
                time.sleep(600)
        return how


@job
def read_odd(odd: Odd) -> str:
    return odd.how


@job
def read_slowly(text: Annotated[str, msgspec.Meta(pattern="^(a+)+$")]) -> str:
    return text
