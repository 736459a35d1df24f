"""What cells of spreadsheets hold: values exactly or as texts, in no more rows than a sheet has."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from datetime import date, datetime, time
from typing import Any

from packmule.jobs.files.database import Database
from packmule.jobs.files.table import Table, Work
from packmule.jobs.files.writing.output import Output, UnfitOutput
from packmule.jobs.files.writing.selection import selected

MOST_ROWS = 1_048_576
"""With the header."""
LONGEST = 32_767
"""Characters of a cell."""
EXACT = 2**53
"""Whole numbers up to this are exact in a cell."""
OTHERS = "convert it to csv or parquet"


class Cells:
    """The rows of a table as a spreadsheet `program` holds them, whose dates begin with `first_day`."""

    def __init__(self, work: Work, table: Table, program: str, first_day: date) -> None:
        self._work, self._table, self._program, self._first_day = work, table, program, first_day
        self._names = [*table.columns]
        self._texts: Counter[str] = Counter()

    @property
    def warnings(self) -> list[str]:
        """What is to be said of values that became texts."""
        return [
            f"{name} has {count:,} texts in place of values that a cell can't hold exactly"
            for name, count in self._texts.items()
        ]

    def rows(self, database: Database, output: Output) -> Iterator[list[Any]]:
        """Yield each row: of None, texts, truth values, and numbers, dates and times that a cell holds.

        Raises `UnfitOutput` if there are more rows than a sheet has, or if a text is longer than a cell.
        """
        table, done = self._table, 0
        if table.rows is not None and table.rows >= MOST_ROWS:
            raise self._too_many(f"{table.rows:,}")
        sql = f"SELECT {selected(table.columns, output)} FROM {table.relation}"  # noqa: S608  quoted
        for some in database.stream(sql, table.parameters, self._work.stage(table.begins, 99, "writing")):
            for row in some:
                done += 1
                if done == MOST_ROWS:
                    raise self._too_many("more")
                yield [self._fitted(done, place, value) for place, value in enumerate(row)]

    def _fitted(self, row: int, place: int, value: Any) -> Any:
        if value is None or value is True or value is False:
            return value
        if not isinstance(value, str):
            if self._is_exact(value):
                return value
            self._texts[self._names[place]] += 1
            value = str(value)
        if len(value) > LONGEST:
            raise UnfitOutput(
                f"{self._work.source}: column {self._names[place]} has a text of {len(value):,} characters "
                f"in row {row:,}, but a cell of {self._program} holds {LONGEST:,}: {OTHERS}"
            )
        return value

    def _is_exact(self, value: Any) -> bool:
        """Whether a cell holds the value exactly: a finite number, or a time in milliseconds."""
        match value:
            case int():
                return abs(value) <= EXACT
            case float():
                return math.isfinite(value)
            case datetime():
                return (
                    value.tzinfo is None and value.date() >= self._first_day and value.microsecond % 1000 == 0
                )
            case date():
                return value >= self._first_day
            case _:
                return isinstance(value, time) and value.microsecond == 0

    def _too_many(self, rows: str) -> UnfitOutput:
        return UnfitOutput(
            f"{self._work.source} has {rows} rows, but a sheet of {self._program} holds {MOST_ROWS - 1:,}: "
            f"{OTHERS}"
        )
