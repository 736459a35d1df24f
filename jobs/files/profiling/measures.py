"""Measures of a table's columns, by DuckDB."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packmule.jobs.files.database import Database, opened, quoted
from packmule.jobs.files.table import Report, Work

EXACT = 10_000
"""Different values up to which they are counted exactly."""
RANKED = 100_000
"""Different values up to which the most frequent ones are found exactly."""
TOP, BINS, LONGEST = 10, 20, 80
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER",
           "UBIGINT", "UHUGEINT", "FLOAT", "DOUBLE", "DECIMAL")  # fmt: skip
INSTANTS = ("DATE", "TIMESTAMP")
TEXTS = ("VARCHAR", "JSON")


def profiled(work: Work, table: Path, columns: Mapping[str, str], report: Report) -> list[dict[str, Any]]:
    """The measures of each column of the Parquet file `table`."""
    found = []
    with opened(work.folder, [table]) as database:
        for place, (name, kind) in enumerate(columns.items()):
            found.append({"name": name, "type": kind, **_measured(database, table, quoted(name), kind)})
            report(100 * (place + 1) / len(columns))
    return found


def _measured(database: Database, table: Path, name: str, kind: str) -> dict[str, Any]:
    source = {"table": str(table)}
    is_plain = kind.startswith((*NUMBERS, *INSTANTS, *TEXTS, "BOOLEAN", "TIME", "UUID"))
    value = name if is_plain else f"CAST({name} AS VARCHAR)"
    relation = f"(SELECT {value} AS v FROM read_parquet($table))"  # noqa: S608  quoted
    ((rows, values, distinct, least, most),) = database.run(
        f"SELECT count(*), count(v), approx_count_distinct(v), {_cut('min(v)')}, {_cut('max(v)')} "  # noqa: S608  ours
        f"FROM {relation}",
        source,
    )
    is_exact = distinct <= EXACT
    if is_exact:
        ((distinct,),) = database.run(f"SELECT count(DISTINCT v) FROM {relation}", source)  # noqa: S608  ours
    facts: dict[str, Any] = {
        "nulls": rows - values,
        "distinct": min(distinct, values),
        "is_exact": is_exact,
        "min": least,
        "max": most,
    }
    if values and kind.startswith((*NUMBERS, *INSTANTS)):
        facts |= _spread(database, relation, source, kind)
    elif values and kind in TEXTS:
        facts["lengths"] = _spread(
            database, f"(SELECT length(v) AS v FROM {relation} WHERE v IS NOT NULL)", source, "BIGINT"  # noqa: S608  ours
        )  # fmt: skip
    return {**facts, "top": _top(database, relation, source, distinct) if distinct < values else []}


def _spread(database: Database, relation: str, source: Mapping[str, str], kind: str) -> dict[str, Any]:
    """The mean, the quantiles and a histogram of values that have a distance; infinite ones are left out."""
    is_number = kind.startswith(NUMBERS)
    number = "CAST(v AS DOUBLE)" if is_number else "CAST(epoch(v) AS DOUBLE)"
    finite = f"(SELECT {number} AS n FROM {relation} WHERE isfinite({number}))"  # noqa: S608  ours
    ((least, most, mean, quantiles),) = database.run(
        f"SELECT min(n), max(n), avg(n), approx_quantile(n, {[*QUANTILES]}) FROM {finite}",  # noqa: S608  ours
        source,
    )
    if least is None:
        return {}
    shown = [*quantiles] if is_number else _instants(database, quantiles, kind)
    facts: dict[str, Any] = {
        "quantiles": dict(zip(map(str, QUANTILES), shown, strict=True)),
        **({"mean": mean} if is_number and math.isfinite(mean) else {}),
    }
    width = most / BINS - least / BINS  # a difference first could be infinite
    if width > 0:
        place = f"CAST(floor((n / {BINS} - {least!r} / {BINS}) / {width!r} * {BINS}) AS INTEGER)"
        bins = dict(
            database.run(
                f"SELECT greatest(0, least({BINS - 1}, {place})), count(*) FROM {finite} GROUP BY 1",  # noqa: S608  ours
                source,
            )
        )
        facts["histogram"] = [bins.get(bin, 0) for bin in range(BINS)]
    return facts


def _instants(database: Database, seconds: list[float], kind: str) -> list[str]:
    """Seconds since 1970 as dates or instants."""
    shown = "DATE" if kind == "DATE" else "TIMESTAMP"
    sql = f"SELECT CAST(CAST(make_timestamp(CAST($at * 1e6 AS BIGINT)) AS {shown}) AS VARCHAR)"
    return [str(database.run(sql, {"at": each})[0][0]) for each in seconds]


def _top(database: Database, relation: str, source: Mapping[str, str], distinct: int) -> list[dict[str, Any]]:
    """The most frequent values; past `RANKED` different ones, those that are likely to be."""
    some = (
        "" if distinct <= RANKED else f"WHERE v IN (SELECT unnest(approx_top_k(v, {TOP})) FROM {relation})"  # noqa: S608  ours
    )
    rows = database.run(
        f"SELECT {_cut('v')}, count(*) FROM {relation} {some} GROUP BY v "  # noqa: S608  ours
        f"HAVING v IS NOT NULL AND count(*) > 1 ORDER BY 2 DESC, v LIMIT {TOP}",
        source,
    )
    return [{"value": value, "count": count} for value, count in rows]


def _cut(value: str) -> str:
    return f"left(CAST({value} AS VARCHAR), {LONGEST})"
