"""The rows that a conversion refused: counted, all written as JSON Lines, the first kept for the result."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from packmule.errors import UsageError

KEPT = 100
"""How many refused rows a result lists."""
CUT = 200
"""Characters kept of a refused row's text and of its reason."""


MOST = 0.01
"""The share of rows that may be refused unless the caller says how many."""


class TooManyRefused(UsageError, ValueError):
    """More rows were refused than the job allows."""


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A row missing from the output: its `line`, from 1, and the faulty `column`, if it is a single one."""

    line: int
    column: str | None
    reason: str
    text: str


class Refusals:
    """Writes refused rows to `file` as JSON Lines; use it as a context manager.

    `add` raises `TooManyRefused` as soon as there are more than `limit`, and `check_share`, if there is no
    limit, if more than 1 % of the rows were refused.
    """

    def __init__(self, source: str, file: Path, limit: int | None) -> None:
        self.file = file
        self.count = 0
        self.first: list[dict[str, Any]] = []
        self._source = source
        self._limit = limit

    def __enter__(self) -> Refusals:
        self._lines = self.file.open("w", encoding="utf-8")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._lines.close()

    def clear(self) -> None:
        """Forget all rows, because the table is read in another way."""
        self.count = 0
        self.first = []
        self._lines.seek(0)
        self._lines.truncate()

    def add(self, line: int, column: str | None, reason: str, text: str) -> None:
        """Record one row; `reason` and `text` are cut to 200 characters."""
        self.count += 1
        if self._limit is not None and self.count > self._limit:
            raise TooManyRefused(
                f"{self._source}: more than {self._limit:,} rows were refused, "
                f"the last at {_place(line, column)}: {reason[:CUT]}"
            )
        refused = asdict(RefusedRow(line, column, reason[:CUT], text[:CUT]))
        if len(self.first) < KEPT:
            self.first.append(refused)
        self._lines.write(json.dumps(refused, ensure_ascii=False) + "\n")

    def check_share(self, written: int) -> None:
        """Raise `TooManyRefused` if more than 1 % of all rows were refused and the caller sets no limit."""
        rows = written + self.count
        if self._limit is None and self.count > MOST * rows:
            first = self.first[0]
            raise TooManyRefused(
                f"{self._source}: {self.count:,} of {rows:,} rows don't fit, the first at "
                f"{_place(first['line'], first['column'])}: {first['reason']}; raise max_refused to allow "
                "them"
            )


def _place(line: int, column: str | None) -> str:
    return f"line {line:,}" + (f", column {column}" if column else "")
