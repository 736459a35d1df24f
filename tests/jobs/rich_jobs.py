"""Jobs that take and return more than JSON has, for the tests of that."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, SecretStr, computed_field, field_serializer

from packmule import job


class Size(enum.Enum):
    SMALL = "s"
    LARGE = "l"


class Line(BaseModel):
    sku: str
    quantity: int = Field(ge=1)


class Order(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    id: UUID
    due: date
    price: Decimal = Field(alias="unitPrice")
    lines: list[Line]
    tags: set[str] = set()

    @computed_field  # type: ignore[prop-decorator]
    @property
    def total(self) -> Decimal:
        return self.price * sum(line.quantity for line in self.lines)


class Login(BaseModel):
    password: SecretStr


class KeptLogin(BaseModel):
    password: SecretStr

    @field_serializer("password", when_used="json")
    def revealed(self, value: SecretStr) -> str:
        return value.get_secret_value()


@dataclass
class Parcel:
    weight: Decimal
    size: Size
    orders: list[Order] = field(default_factory=list)


seen: list[Any] = []


@job
def ship(order: Order, more: list[Order] | None = None) -> Order:
    """Ship an order."""
    seen[:] = [order, more]
    return order


@job
def pack(parcel: Parcel) -> Parcel:
    seen[:] = [parcel]
    return parcel


@job(isolate=True)
def pack_apart(parcel: Parcel) -> dict[str, Any]:
    assert type(parcel) is Parcel
    return {"parcel": parcel}


@job
async def later(order: Order) -> list[Order]:
    return [order]


@job
def plain(
    amount: Decimal,
    id: UUID,
    at: datetime,
    day: date,
    hour: time,
    span: timedelta,
    size: Size,
    colors: set[str],
    pair: tuple[int, date],
    by_day: dict[date, Decimal],
    odds: frozenset[int] = frozenset(),
) -> tuple[Any, ...]:
    seen[:] = [amount, id, at, day, hour, span, size, colors, pair, by_day, odds]
    return amount, id, at, day, hour, span, size, sorted(colors), pair, by_day, odds


@job
def pay(amount: Decimal, tip: Decimal | None = None) -> str:
    return f"{amount} {tip}"


@job
def log_in(login: Login) -> None: ...


@job
def log_in_kept(login: KeptLogin) -> str:
    return login.password.get_secret_value()


@job
def leaks() -> Login:
    return Login(password=SecretStr("secret"))
