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

    `add` raises `TooManyRefused` as soon as there are more than `limit`.
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

    def add(self, line: int, column: str | None, reason: str, text: str) -> None:
        """Record one row; `reason` and `text` are cut to 200 characters."""
        self.count += 1
        if self._limit is not None and self.count > self._limit:
            where = f"line {line:,}" + (f", column {column}" if column else "")
            raise TooManyRefused(
                f"{self._source}: more than {self._limit:,} rows were refused, "
                f"the last at {where}: {reason[:CUT]}"
            )
        refused = asdict(RefusedRow(line, column, reason[:CUT], text[:CUT]))
        if len(self.first) < KEPT:
            self.first.append(refused)
        self._lines.write(json.dumps(refused, ensure_ascii=False) + "\n")
