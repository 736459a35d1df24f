"""Jobs that misbehave."""

from __future__ import annotations

import sys

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
