"""Jobs that the tests of this folder register, enqueue and check calls against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal, NotRequired, TypedDict

import msgspec

from packmule import current, job


class Point(TypedDict):
    x: int
    label: NotRequired[str]


class Size(msgspec.Struct):
    width: int
    height: int = 1


@dataclass
class Colour:
    red: int


@job
def noop() -> None:
    pass


@job
def waits_with(name: str) -> str:
    """Make something as a step, and wait until it is approved."""
    made = current.step("make", "converted/{}/a.parquet".format, name)
    current.wait_for("approved")
    return made


@job
def add(a: int, b: int = 1) -> int:
    return a + b


@job
def echo(value: Any) -> Any:
    return value


@job
def call_back(function: str) -> None:
    pass


@job
def bare(first, second=2):
    return [first, second]


@job
def choose(fit: Literal["cover", "contain"], ratio: float | None = None) -> str:
    return f"{fit} {ratio}"


@job
def plan(when: datetime, days: list[date] | None = None) -> str:
    return when.isoformat()


@job
def tally(counts: dict[str, int], names: Sequence[str] = ()) -> int:
    return sum(counts.values())


@job
def by_number(names: dict[int, str]) -> str:
    return names[1]


@job
def collect(*numbers: int, **labels: str) -> int:
    return len(numbers) + len(labels)


@job
def placed(here: int, /, there: int, *, scale: float = 1.0) -> float:
    return (here + there) * scale


@job
def draw(point: Point, size: Size | None = None, colour: Colour | None = None) -> int:
    return point["x"]


@job
def store(content: bytes, anything: object = None) -> int:
    return len(content)


@job
async def later(seconds: float) -> float:
    return seconds


@job(
    queue="low",
    timeout=2.5,
    result_ttl=60,
    failure_ttl=120,
    retries=3,
    retry_intervals=(1, 5),
    description="all said",
)
def decorated(name: str) -> str:
    return name


def allowed(n: int) -> int:
    return n


@job(unique=True)
def only(a: int, b: int = 2, *rest: int, c: Any = None, **more: Any) -> int:
    return a + b


@job(unique="{account}")
def invoice(account: int | str, month: str = "", copies: int = 1) -> str:
    return month


@job(unique="{account}", debounce=30, debounce_limit=40)
def refresh(account: int, reason: str = "") -> str:
    return reason


@job(unique="{account}", throttle=30)
def ping(account: int, reason: str = "") -> str:
    return reason


def even(number: int, when: date | None = None) -> None:
    assert when is None or isinstance(when, date)
    if number % 2:
        raise ValueError(f"{number} is odd")


@job(check=even)
def halve(number: int, when: date | None = None) -> int:
    return number // 2
