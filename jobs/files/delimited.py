"""CSV and its relatives as a table, with the position of each refused row in the file."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from packmule.jobs.files.database import Database, QueryFailed, quoted
from packmule.jobs.files.first_rows import FirstRows, first_rows
from packmule.jobs.files.forms import SURE
from packmule.jobs.files.layout import Layout, layout_of
from packmule.jobs.files.refusals import Refusals
from packmule.jobs.files.rejects import REJECTS
from packmule.jobs.files.rejects import collect as collect_rejects
from packmule.jobs.files.survey import Surveyed, aggregate, one_format, surveyed
from packmule.jobs.files.table import Table, Work, check_width, typed
from packmule.jobs.files.text import DELIMITERS, Text, likely_utf8_of, utf8_of
from packmule.units import MIB

MAX_LINE = 16 * MIB
"""Bytes; a longer row is refused."""


def columns(work: Work, database: Database) -> Mapping[str, str]:
    """The columns and their types, judged by the first rows. Raises `TooWide` and `UnreadableText`."""
    del database
    found = _Csv.of(work, likely_utf8_of(work)).first.columns
    return typed(
        work.source,
        {each.name: each.forms[0].type if len(each.forms) == 1 else "VARCHAR" for each in found},
        work.reading.columns,
    )


def count(work: Work, database: Database) -> int:
    """The number of records below the header that have all fields. Raises `UnreadableText`."""
    return _Csv.of(work, utf8_of(work)).count(database)


def tables(work: Work, database: Database, refusals: Refusals) -> Iterator[Table]:
    """The table as the first rows have it, if all of those fit; then, if needed, as all rows have it.

    Raises `MismatchedColumns`, `TooWide`, `UnreadableText`.
    """
    del refusals
    text = likely_utf8_of(work)
    csv = _Csv.of(work, text)
    if csv.is_clean:
        yield csv.as_first_rows(text.is_sure)
    if not text.is_sure and (other := utf8_of(work)).file != text.file:
        csv = _Csv.of(work, other)
    yield csv.as_all_rows(database)


def has_one_column(file: Path) -> bool:
    """Whether most of the first lines have no delimiter at all, as in a table of one column."""
    with file.open("rb") as content:
        lines = [line for line in content.readlines(64 * 1024) if line.strip()]
    return sum(not set(DELIMITERS) & set(line.decode("utf-8", "replace")) for line in lines) * 2 > len(lines)


@dataclass(frozen=True, slots=True)
class _Csv:
    """A CSV in UTF-8, and what is known of it."""

    work: Work
    text: Text
    layout: Layout
    first: FirstRows
    cut: Path | None = None
    strict: bool = True

    @classmethod
    def of(cls, work: Work, text: Text) -> _Csv:
        layout = layout_of(text.file, work.reading)
        check_width(work.source, range(layout.width))
        first = first_rows(layout, work.reading)
        typed(work.source, {each.name: "" for each in first.columns}, work.reading.columns)
        texts = {name for name, kind in work.reading.columns.items() if kind == "VARCHAR"}
        columns = [
            replace(each, forms=(), is_clean=True) if each.name in texts else each for each in first.columns
        ]
        cut = work.folder / "cut" if _has_quotes_above(text.file, first.above) else None
        if cut is not None:
            _copy_below(text.file, first.above, cut)
        return cls(work, text, layout, replace(first, columns=columns), cut)

    @property
    def given(self) -> Mapping[str, str]:
        return {name: kind for name, kind in self.work.reading.columns.items() if kind != "VARCHAR"}

    @property
    def is_clean(self) -> bool:
        return not self.given and all(each.is_clean for each in self.first.columns)

    @property
    def nothing(self) -> list[str]:
        return ["", *self.work.reading.null]

    @property
    def _newline(self) -> Mapping[str, Any]:
        """What DuckDB is told of line ends; with `strict_mode = true` beside them it would read nothing."""
        if not self.strict:
            return {"strict_mode": False}
        end = self.layout.newline.encode("unicode_escape").decode()
        return {"new_line": end} if end else {}

    def as_first_rows(self, is_utf8: bool) -> Table:
        """The table with the forms that the first rows have; the read stops at a value of another form."""
        names = [each.name for each in self.first.columns]
        types = {each.name: each.forms[0].type if each.forms else "VARCHAR" for each in self.first.columns}
        values = [
            each.forms[0].checked(quoted(each.name), self.nothing) if each.forms else quoted(each.name)
            for each in self.first.columns
        ]
        relation, parameters = self._relation(dict.fromkeys(names, "VARCHAR"), REJECTS)
        return self._table(values, relation, parameters, types, is_utf8=is_utf8)

    def as_all_rows(self, database: Database) -> Table:
        """The table with the forms that all rows have, but for the few values that are refused."""
        csv, found = self._surveyed(database)
        found, formats = one_format(found)
        read, values, types = {}, [], {}
        for each in found:
            types[each.name] = self.given.get(each.name) or (each.form.type if each.form else "VARCHAR")
            is_read = each.name in self.given or (each.form is not None and not each.is_clean)
            read[each.name] = types[each.name] if is_read else "VARCHAR"
            name = quoted(each.name)
            # DuckDB would read a column that is cast alone as that type, and refuse a quoted empty text.
            values.append(each.form.cast(f"nullif({name}, '')") if each.form and not is_read else name)
        options: dict[str, Any] = {}
        if formats.get("DATE"):
            options["dateformat"] = formats["DATE"]
        if formats.get("TIMESTAMP"):
            options["timestampformat"] = formats["TIMESTAMP"]
        relation, parameters = csv._relation(read, REJECTS, options)
        return csv._table(
            values, relation, parameters, types, [each.warning for each in found if each.warning], begins=50
        )

    def count(self, database: Database) -> int:
        relation, parameters = self._relation(
            {each.name: "VARCHAR" for each in self.first.columns}, "ignore_errors = true"
        )
        try:
            ((rows,),) = database.run(f"SELECT count(*) FROM {relation}", parameters)  # noqa: S608  quoted
        except QueryFailed as error:
            if not self.strict or "invalid state" not in str(error):
                raise
            return replace(self, strict=False).count(database)
        return int(rows)

    def _surveyed(self, database: Database) -> tuple[_Csv, list[Surveyed]]:
        def survey(csv: _Csv) -> list[Surveyed]:
            relation, parameters = csv._relation(
                {each.name: "VARCHAR" for each in self.first.columns}, "ignore_errors = true"
            )
            report = self.work.stage(5, 50, "checking the columns")

            def aggregated(aggregates: Sequence[str]) -> list[int]:
                return aggregate(database, relation, parameters, aggregates, report)

            return surveyed(
                self.work.source, self.first.columns, self.given, self.first.comma, self.nothing, aggregated
            )

        try:
            return self, survey(self)
        except QueryFailed as error:
            if "invalid state" not in str(error):
                raise
            # DuckDB's strict parser, which recovers after a quote that is never closed, doesn't accept two
            # kinds of line ends in one file.
            other = replace(self, strict=False)
            return other, survey(other)

    def _relation(
        self, columns: Mapping[str, str], rest: str, more: Mapping[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """The SQL and parameters of a read of the file with columns of those types."""
        options = {
            "delim": self.layout.delimiter,
            "quote": self.layout.quote,
            "escape": self.layout.escape,
            # DuckDB counts records, and would take a quote in a title for the beginning of one.
            "skip": (0 if self.cut else self.first.above) + self.first.has_header,
            "nullstr": self.nothing,
            "decimal_separator": "," if self.first.comma else ".",
            # A text that is quoted is one, even if it is empty; a number is none then.
            "allow_quoted_nulls": any(kind != "VARCHAR" for kind in columns.values()),
            **self._newline,
            **(more or {}),
        }
        said = "".join(f"{name} = ${name}, " for name in options)
        sql = (
            "read_csv($source, auto_detect = false, compression = 'none', header = false, "
            f"max_line_size = {MAX_LINE}, buffer_size = {2 * MAX_LINE}, columns = $columns, {said}{rest})"
        )
        return sql, {**options, "source": str(self.cut or self.text.file), "columns": dict(columns)}

    def _table(
        self,
        values: Sequence[str],
        relation: str,
        parameters: Mapping[str, Any],
        types: Mapping[str, str],
        warnings: Sequence[str] = (),
        is_utf8: bool = True,
        begins: float = 0,
    ) -> Table:
        shown = ", ".join(f"{value} AS {quoted(name)}" for value, name in zip(values, types, strict=True))
        origin = {
            "encoding": self.text.encoding,
            "delimiter": self.layout.delimiter,
            "quote": self.layout.quote,
            "skip": self.first.above,
            "header": int(self.first.has_header),
            **({"decimal": ","} if self.first.comma else {}),
        }

        def collect(database: Database, refusals: Refusals) -> None:
            above = self.first.above if self.cut else 0
            collect_rejects(database, self.cut or self.text.file, above, refusals, is_utf8)

        return Table(
            f"(SELECT {shown} FROM {relation})",  # noqa: S608  quoted
            parameters, types, origin, warnings,
            least=int(SURE * self.first.rows), collect=collect, begins=begins,
        )  # fmt: skip


def _has_quotes_above(file: Path, lines: int) -> bool:
    with file.open("rb") as content:
        return any(b'"' in line or b"'" in line for line in islice(content, lines))


def _copy_below(file: Path, lines: int, target: Path) -> None:
    """Copy what is below the first lines of `file`."""
    with file.open("rb") as content, target.open("wb") as copy:
        for _ in islice(content, lines):
            pass
        shutil.copyfileobj(content, copy, MIB)
