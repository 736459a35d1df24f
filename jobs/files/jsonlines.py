"""JSON Lines: each line is checked against types guessed from the first ones; DuckDB reads the good ones."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import msgspec

from packmule.coordination.redis.replies import UNREADABLE
from packmule.errors import UsageError
from packmule.jobs.files.database import Database
from packmule.jobs.files.refusals import Refusals
from packmule.jobs.files.table import MismatchedColumns, Table, Work, check_width, typed
from packmule.jobs.files.text import Text, as_utf8
from packmule.units import MIB

MAX_LINE = 8 * MIB
"""Bytes; a longer line is refused."""
SAMPLE_LINES = 10_000
SAMPLE_BYTES = 4 * MIB
SURE = 0.99
REPORT_EVERY = 4096
"""Lines between two reports of progress."""

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


class UnfitKey(UsageError, ValueError):
    """A key of the objects can't be a column name."""


def columns(work: Work, database: Database) -> Mapping[str, str]:
    """The columns and their types, judged by the first lines. Raises `TooWide` or `UnfitKey`."""
    del database
    with _utf8(work).file.open("rb") as content:
        sampled = _sampled(content)
    _check_names(work.source, sampled)
    return sampled


def table(work: Work, database: Database, refusals: Refusals) -> Table:
    """Check every line; returns the table of the good ones, while the others go to `refusals`.

    If there are bad lines, the good ones are copied. Types are guessed from the first 10,000 lines. A column
    of whole numbers becomes DOUBLE at the first fraction, a later key adds a column, and objects and lists
    are kept as JSON. Raises `MismatchedColumns`, `TooWide`, `UnfitKey`, `TooManyRefused`, `UnreadableText`.
    """
    del database
    text = _utf8(work)
    schema = _Schema(work, text.file)
    size, report = text.file.stat().st_size, work.stage(5, 50, "checking lines")
    cleaned = work.folder / "cleaned"
    copy: BinaryIO | None = None
    good = 0
    with ExitStack() as closing, text.file.open("rb") as content:
        for number, start, line in lines(content):
            refused = schema.check(line)
            if refused is None:
                good += 1
                if copy is not None:
                    copy.write(line if line.endswith(b"\n") else line + b"\n")
            else:
                if copy is None:
                    copy = closing.enter_context(cleaned.open("wb"))
                    _copy(text.file, copy, start)
                refusals.add(number, *refused, line[:1000].decode("utf-8", "replace").rstrip("\r\n"))
            if number % REPORT_EVERY == 0:
                report(100 * start / size)
    relation = (
        "read_json($source, format = 'newline_delimited', compression = 'uncompressed', "
        f"maximum_object_size = {2 * MAX_LINE}, columns = $columns)"
    )
    parameters = {"source": str(text.file if copy is None else cleaned), "columns": schema.columns}
    return Table(
        relation, parameters, schema.columns, {"encoding": text.encoding}, rows=good + refusals.count
    )


def collect(database: Database, table: Table, refusals: Refusals) -> None:
    """Does nothing: lines are refused before the table is read."""


class _Schema:
    """The columns known so far, and the decoder that checks a line against them."""

    def __init__(self, work: Work, file: Path) -> None:
        self._work = work
        if unfit := next((name for name, kind in work.given.items() if kind not in CHECKS), None):
            raise MismatchedColumns(
                f"{work.source}: column {unfit} can't be {work.given[unfit]} in JSON Lines: "
                f"use {', '.join(CHECKS)}"
            )
        with file.open("rb") as content:
            self.columns = typed(work.source, _sampled(content), work.given)
        self._build()

    def check(self, line: bytes) -> tuple[str | None, str] | None:
        """None for a good line, otherwise the faulty column, if it is a single one, and the reason."""
        try:
            self._decode(line)
        except msgspec.ValidationError as error:
            return None if self._learned(line) else _fault(error)
        except UNREADABLE as error:
            return None, f"longer than {MAX_LINE:,} bytes" if len(line) > MAX_LINE else str(error)
        return None

    def _learned(self, line: bytes) -> bool:
        """Whether the line fits once the schema is widened for it."""
        try:
            row = msgspec.json.decode(line)
        except UNREADABLE:
            return False
        if not isinstance(row, dict):
            return False
        changed = {
            name: _decided(Counter([_category(value)]))
            for name, value in row.items()
            if name not in self.columns
        }
        changed |= {
            name: "DOUBLE"
            for name, value in row.items()
            if isinstance(value, float)
            and self.columns.get(name) == "BIGINT"
            and name not in self._work.given
        }
        if not changed:
            return False
        before = dict(self.columns)
        self.columns |= changed
        self._build()
        try:
            self._decode(line)
        except msgspec.ValidationError:
            self.columns = before
            self._build()
            return False
        return True

    def _build(self) -> None:
        _check_names(self._work.source, self.columns)
        fields = [
            (f"f{index}", CHECKS[kind] | None, None) for index, kind in enumerate(self.columns.values())
        ]
        names = {f"f{index}": name for index, name in enumerate(self.columns)}
        struct = msgspec.defstruct("Row", fields, rename=names, forbid_unknown_fields=True)
        self._decode = msgspec.json.Decoder(struct).decode


def _check_names(source: str, names: Collection[str]) -> None:
    """Raise `UnfitKey` for keys that can't be column names, or `TooWide`."""
    check_width(source, names)
    taken: dict[str, str] = {}
    for name in names:
        if not name.isprintable() or not name or '"' in name or "\\" in name:
            raise UnfitKey(f"{source} has the key {name!r}, which can't be a column name: rename it")
        if (other := taken.setdefault(name.lower(), name)) != name:
            raise UnfitKey(f"{source} has the keys {other} and {name}, which differ only in case: rename one")


def _utf8(work: Work) -> Text:
    return as_utf8(work.source, work.file, work.folder / "utf-8", work.stage(0, 5, "reading"))


def lines(content: BinaryIO) -> Iterator[tuple[int, int, bytes]]:
    """Yield (number from 1, offset, line) of each line that isn't blank; an over-long line is cut."""
    start = 0
    for number, line in enumerate(iter(partial(content.readline, MAX_LINE + 1), b""), start=1):
        size = len(line)
        while size > MAX_LINE and (rest := content.readline(MAX_LINE)):
            size += len(rest)
            if rest.endswith(b"\n"):
                break
        if not line.isspace():
            yield number, start, line
        start += size


def _copy(file: Path, target: BinaryIO, size: int) -> None:
    with file.open("rb") as content:
        while size and (chunk := content.read(min(size, MIB))):
            target.write(chunk)
            size -= len(chunk)


def _sampled(content: BinaryIO) -> dict[str, str]:
    """The columns of the first lines, each with the type of nearly all its values."""
    seen: dict[str, Counter[str]] = {}
    for number, start, line in lines(content):
        if number > SAMPLE_LINES or start > SAMPLE_BYTES:
            break
        try:
            row = msgspec.json.decode(line)
        except UNREADABLE:
            continue
        if isinstance(row, dict):
            for name, value in row.items():
                seen.setdefault(name, Counter())[_category(value)] += 1
    return {name: _decided(categories) for name, categories in seen.items()}


def _category(value: object) -> str:  # noqa: PLR0911  one for each kind of value
    match value:
        case None:
            return "NULL"
        case bool():
            return "BOOLEAN"
        case int():
            return "BIGINT" if -(2**63) <= value < 2**63 else "VARCHAR"
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
    counts = Counter({kind: count for kind, count in categories.items() if kind != "NULL"})
    if counts["DOUBLE"]:
        counts["DOUBLE"] += counts.pop("BIGINT", 0)
    if not (total := counts.total()):
        return "VARCHAR"
    kind, count = counts.most_common(1)[0]
    if count >= SURE * total:
        return kind
    return "VARCHAR" if _only(counts, {"VARCHAR", "DATE", "TIMESTAMP", "TIMESTAMPTZ"}) else "JSON"


def _only(counts: Mapping[str, int], kinds: Iterable[str]) -> bool:
    return not {kind for kind, count in counts.items() if count} - set(kinds)


def _fault(error: msgspec.ValidationError) -> tuple[str | None, str]:
    """msgspec's "Expected `int`, got `str` - at `$.width`" as column and reason."""
    reason, _, path = str(error).partition(" - at `$.")
    return path.rstrip("`") or None, reason
