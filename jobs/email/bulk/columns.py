"""The columns of a list: which has the addresses, and what templates call the others."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from packmule.jobs.email.bulk.table import Row, UnreadableList
from packmule.jobs.email.message.addresses import InvalidAddress, parse
from packmule.plain_text import plain

SAMPLED = 200
"""Rows by whose values the column of addresses is found if no name tells."""

NAMES = frozenset({"email", "emailaddress", "mail", "mailaddress", "recipient", "to"})
"""Names of a column of addresses, without case and signs."""

MOST_SHOWN = 20
"""Columns that an error names."""


class NoColumn(UnreadableList):
    """A list has no column of that name, or none or several that could have the addresses."""


def column_of(source: str, rows: Sequence[Row], wanted: str | None) -> str:
    """The name of the column of addresses: `wanted`, or found by its name or else by its values.

    Raises `NoColumn`.

    >>> column_of("a.csv", [Row(2, {"Name": "Ada", "E-Mail": "ada@example.org"})], None)
    'E-Mail'
    """
    names = list(dict.fromkeys(name for row in rows for name in row.values))
    if wanted is not None:
        if wanted in names:
            return wanted
        raise NoColumn(f"{source} has no column {wanted!r:.80}: it has {shown(names)}")
    by_name = [name for name in names if re.sub(r"[\W_]", "", name).casefold() in NAMES]
    found = by_name or [name for name in names if _has_addresses(rows, name)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise NoColumn(
            f"{source} has no column of addresses that can be found: name it with --column (column=); "
            f"it has {shown(names)}"
        )
    raise NoColumn(
        f"{source} has several columns that may have the addresses, {shown(found)}: "
        "name one with --column (column=)"
    )


class VariableNames:
    """What templates call each column: its own name with signs as `_`, so that `First name` is `First_name`.

    >>> VariableNames("a.csv").of("First name")
    'First_name'
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._names: dict[str, str] = {}
        self._columns: dict[str, str] = {}

    def of(self, column: str) -> str:
        """The variable's name. Raises `UnreadableList` if another column has it."""
        known = self._names.get(column)
        if known is not None:
            return known
        name = re.sub(r"\W+", "_", column.strip()).strip("_") or "column"
        name = f"_{name}" if name[0].isdigit() else name
        other = self._columns.setdefault(name, column)
        if other != column:
            raise UnreadableList(
                f"{self._source}: its columns {other!r:.80} and {column!r:.80} would both be the variable "
                f"{name:.80}: rename one"
            )
        self._names[column] = name
        return name

    def variables(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values of a row by what templates call them."""
        return {self.of(column): value for column, value in values.items()}


def _has_addresses(rows: Sequence[Row], name: str) -> bool:
    """Whether most of a column's first values are addresses."""
    values = [value for row in rows if (value := row.values.get(name)) not in (None, "")]
    return sum(map(_is_address, values)) * 2 > len(values)


def _is_address(value: Any) -> bool:
    if not isinstance(value, str) or "@" not in value:
        return False
    try:
        parse(value)
    except InvalidAddress:
        return False
    return True


def shown(names: Sequence[str]) -> str:
    """The first names, for an error."""
    more = f" and {len(names) - MOST_SHOWN} more" if len(names) > MOST_SHOWN else ""
    return (", ".join(plain(name)[:80] for name in names[:MOST_SHOWN]) or "none") + more
