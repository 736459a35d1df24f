"""The columns of JSON objects: guessed from the first ones, and widened for later ones."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from datetime import date, datetime
from typing import Annotated, Any

import msgspec

from packmule.coordination.redis.replies import UNREADABLE
from packmule.errors import UsageError
from packmule.jobs.files.forms import SURE
from packmule.jobs.files.table import MAX_COLUMNS, MAX_NAME, MismatchedColumns, Work, check_width, typed

DATE = re.compile(r"\d{4}-\d\d-\d\d")
INSTANT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)?")

CHECKS: dict[str, Any] = {
    "TINYINT": Annotated[int, msgspec.Meta(ge=-(2**7), lt=2**7)],
    "SMALLINT": Annotated[int, msgspec.Meta(ge=-(2**15), lt=2**15)],
    "INTEGER": Annotated[int, msgspec.Meta(ge=-(2**31), lt=2**31)],
    "BIGINT": Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)],
    "FLOAT": float,
    "DOUBLE": float,
    "BOOLEAN": bool,
    "VARCHAR": str | int | float | bool,
    "DATE": date,
    "TIMESTAMP": Annotated[datetime, msgspec.Meta(tz=False)],
    "TIMESTAMPTZ": Annotated[datetime, msgspec.Meta(tz=True)],
    "JSON": Any,
}
"""The JSON form of each type's values; `null` and a missing key are always valid."""

EXACT = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]
"""Whole numbers that a DOUBLE holds exactly."""
FIRST_CHECKS: dict[str, Any] = {"BIGINT": EXACT, "DOUBLE": EXACT | float}
"""What the values of a column may be that may yet become DOUBLE, or is."""
ROUNDED = "{} is JSON: it has fractions, and whole numbers that a DOUBLE would round"


class UnfitKey(UsageError, ValueError):
    """A key of the objects can't be a column name."""


class JsonColumns:
    """The columns known so far, and the decoder that checks a line against them."""

    def __init__(self, work: Work, first: Iterable[bytes]) -> None:
        self._given = work.reading.columns
        if unfit := next((name for name, kind in self._given.items() if kind not in CHECKS), None):
            raise MismatchedColumns(
                f"{work.source}: column {unfit} can't be {self._given[unfit]} in JSON: "
                f"use {', '.join(CHECKS)}"
            )
        seen = _seen(work, first)
        self.columns = _columns(work, seen)
        self._rounded = {name for name, kinds in seen.items() if _would_round(kinds)}
        self._long: set[str] = set()
        self._misfits: dict[str, Counter[str]] = {}
        self._build()

    @property
    def warnings(self) -> list[str]:
        return [ROUNDED.format(name) for name in self.columns if name in self._rounded - self._given.keys()]

    def check(self, line: bytes) -> tuple[str | None, str] | None:
        """None for a good line, otherwise the faulty column, if it is a single one, and the reason."""
        try:
            self._decode(line)
        except msgspec.ValidationError as error:
            return self._learned(line, error)
        except UNREADABLE as error:
            return None, str(error)
        return None

    def widen(self, total: int) -> bool:
        """Whether a column of which more than 1 % of `total` values don't fit is now wider."""
        misfits, self._misfits = self._misfits, {}
        wider = {
            name: _decided(seen + Counter({self.columns[name]: total - seen.total()}))
            for name, seen in misfits.items()
            if seen.total() > (1 - SURE) * total and name not in self._given
        }
        self.columns |= wider
        self._build()
        return bool(wider)

    def _learned(self, line: bytes, error: msgspec.ValidationError) -> tuple[str | None, str] | None:
        """None if the line fits once the columns are widened for it, otherwise as `check`."""
        try:
            row = msgspec.json.decode(line)
        except UNREADABLE:
            return _fault(error)
        if not isinstance(row, dict):
            return _fault(error)
        before = self.columns, self._long, self._rounded
        for name, value in row.items():
            self._learn(name, _category(value))
        reason: tuple[str | None, str] | None = None
        if unfit := _unfit(self.columns):
            reason = None, unfit
        elif (self.columns, self._long) != before[:2]:
            self._build()
            try:
                self._decode(line)
            except msgspec.ValidationError as other:
                error = other
            else:
                return None
        self.columns, self._long, self._rounded = before
        self._build()
        column, why = reason or _fault(error)
        if column in self.columns:
            self._misfits.setdefault(column, Counter())[_category(row.get(column))] += 1
        return column, why

    def _learn(self, name: str, kind: str) -> None:
        """Widen the columns for a value, unless it needs more than one of 1 % of all."""
        before = self.columns.get(name)
        if before is None:
            self.columns = {**self.columns, name: _decided(Counter([kind]))}
        elif name not in self._given:
            if kind == "LONG" and before == "BIGINT":
                self._long = self._long | {name}
            elif (kind == "LONG" and before == "DOUBLE") or (kind == "DOUBLE" and name in self._long):
                self.columns = {**self.columns, name: "JSON"}
                self._rounded = self._rounded | {name}
            elif kind == "DOUBLE" and before == "BIGINT":
                self.columns = {**self.columns, name: "DOUBLE"}

    def _build(self) -> None:
        fields = []
        for index, (name, kind) in enumerate(self.columns.items()):
            first = FIRST_CHECKS if name not in self._given.keys() | self._long else {}
            fields.append((f"f{index}", first.get(kind, CHECKS[kind]) | None, None))
        names = {f"f{index}": name for index, name in enumerate(self.columns)}
        struct = msgspec.defstruct("Row", fields, rename=names, forbid_unknown_fields=True)
        self._decode = msgspec.json.Decoder(struct).decode


def _unfit(names: Collection[str]) -> str:
    """Why the keys can't be columns' names, or nothing."""
    if len(names) > MAX_COLUMNS:
        return f"more than {MAX_COLUMNS:,} keys"
    taken: dict[str, str] = {}
    for name in names:
        if not name.isprintable() or not name or '"' in name or "\\" in name or len(name) > MAX_NAME:
            return f"the key {name[:40]!r}, which can't be a column name: rename it"
        if (other := taken.setdefault(name.lower(), name)) != name:
            return f"the keys {other} and {name}, which differ only in case: rename one"
    return ""


def first_columns(work: Work, first: Iterable[bytes]) -> dict[str, str]:
    """The columns of the first lines, each with the type of nearly all its values.

    A name that can't be a column's is left out if it is rare: its lines are refused. Raises `UnfitKey`,
    `TooWide` and `MismatchedColumns`.
    """
    return _columns(work, _seen(work, first))


def _columns(work: Work, seen: Mapping[str, Counter[str]]) -> dict[str, str]:
    return typed(work.source, {name: _decided(kinds) for name, kinds in seen.items()}, work.reading.columns)


def _seen(work: Work, first: Iterable[bytes]) -> dict[str, Counter[str]]:
    """How many values of each category the columns have."""
    seen: dict[str, Counter[str]] = {}
    rows = 0
    for line in first:
        try:
            row = msgspec.json.decode(line)
        except UNREADABLE:
            continue
        if isinstance(row, dict):
            rows += 1
            for name, value in row.items():
                seen.setdefault(name, Counter())[_category(value)] += 1
    if _unfit(seen):
        seen = {name: kinds for name, kinds in seen.items() if kinds.total() > (1 - SURE) * rows}
    check_width(work.source, seen)
    if unfit := _unfit(seen):
        raise UnfitKey(f"{work.source} has {unfit}")
    return seen


def _category(value: object) -> str:  # noqa: PLR0911  one for each kind of value
    match value:
        case None:
            return "NULL"
        case bool():
            return "BOOLEAN"
        case int():
            if abs(value) <= 2**53:
                return "BIGINT"
            return "LONG" if -(2**63) <= value < 2**63 else "VARCHAR"
        case float():
            return "DOUBLE"
        case str():
            if DATE.fullmatch(value):
                return "DATE"
            found = INSTANT.fullmatch(value)
            return ("TIMESTAMPTZ" if found[2] else "TIMESTAMP") if found else "VARCHAR"
        case _:
            return "JSON"


def _decided(categories: Counter[str]) -> str:
    """The type for values of these categories: theirs if nearly all agree, otherwise text or JSON."""
    if _would_round(categories):
        return "JSON"
    counts = Counter({kind: count for kind, count in categories.items() if kind != "NULL"})
    counts["BIGINT"] += counts.pop("LONG", 0)
    if counts["DOUBLE"]:
        counts["DOUBLE"] += counts.pop("BIGINT", 0)
    if not (total := counts.total()):
        return "VARCHAR"
    kind, count = counts.most_common(1)[0]
    if count >= SURE * total:
        return kind
    return "VARCHAR" if _only(counts, {"VARCHAR", "DATE", "TIMESTAMP", "TIMESTAMPTZ"}) else "JSON"


def _would_round(categories: Mapping[str, int]) -> bool:
    """Whether a DOUBLE, which the fractions need, would round some of the whole numbers."""
    return bool(categories.get("DOUBLE") and categories.get("LONG"))


def _only(counts: Mapping[str, int], kinds: Iterable[str]) -> bool:
    return not {kind for kind, count in counts.items() if count} - set(kinds)


def _fault(error: msgspec.ValidationError) -> tuple[str | None, str]:
    """msgspec's "Expected `int`, got `str` - at `$.width`" as column and reason."""
    reason, _, path = str(error).partition(" - at `$.")
    return path.rstrip("`") or None, reason
