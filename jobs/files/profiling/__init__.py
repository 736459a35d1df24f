"""The profile job: what the columns of a stored table contain, as JSON and as a page."""

from __future__ import annotations

import json
from typing import Any

from packmule.jobs import current
from packmule.jobs.files.compressed import unpacked
from packmule.jobs.files.convert import convert, working
from packmule.jobs.files.profiling.measures import profiled
from packmule.jobs.files.profiling.page import rendered
from packmule.jobs.files.reading import Reading
from packmule.jobs.files.refusals import Refusals
from packmule.jobs.files.signatures import kind_of
from packmule.jobs.files.storing import OF_TABLES, percent, reading, stem_of
from packmule.jobs.files.writing.output import Output
from packmule.jobs.input_limits import InputLimits
from packmule.jobs.job import job
from packmule.jobs.retention.made import new_place
from packmule.jobs.storage import Storage
from packmule.jobs.storage.store import explained

LISTED = 100
"""Columns that a result has; the stored JSON has all."""


@job(**OF_TABLES)
def profile(
    source: str,
    out: str | None = None,
    *,
    columns: dict[str, str] | None = None,
    encoding: str | None = None,
    delimiter: str | None = None,
    quote: str | None = None,
    header: int | None = None,
    skip: int | None = None,
    null: list[str] | None = None,
    dates: str | None = None,
    decimal: str | None = None,
    sheet: str | None = None,
    range: str | None = None,
    max_refused: int | None = None,
) -> dict[str, Any]:
    """Profile the columns of the table in the stored file `source`.

    It is read as `file` reads it. Of each column there are the type, the rows without a value, how many
    values differ (approximately, past 10,000), the smallest and largest value, quantiles and mean of numbers
    and dates, lengths of texts, the most frequent values, and a histogram. In the folder `out` (default:
    `profiles/<job id>`) `<source's stem>.json` has all of that, and `<stem>.html` shows it; they appear
    together or not at all. The result has the first 100 columns::

        {"source": "uploads/a.csv", "path": "profiles/7f0c/a.html", "json": "profiles/7f0c/a.json",
         "rows": 1461, "refused": 0, "warnings": [],
         "columns": [{"name": "wind", "type": "DOUBLE", "nulls": 0, "distinct": 79,
                      "is_exact": True, "min": "0.4", "max": "9.5", "mean": 3.24, "quantiles": {...},
                      "top": [{"value": "3.0", "count": 57}, ...], "histogram": [...]}, ...]}

    Raises what `file` raises.

    >>> profile.enqueue("uploads/a.csv")  # doctest: +SKIP
    """
    storage, limits = current.resource(Storage), current.resource(InputLimits)
    nulls = tuple(null or ())
    said = Reading(
        columns or {}, encoding, delimiter, quote, header, skip, nulls, dates, decimal, sheet, range
    ).check(source)
    folder = out and out.rstrip("/")
    if folder:
        storage.locate(folder)  # raises before any work if it is outside
    with (
        reading(storage, source, limits.file_bytes) as content,
        working(source, content, said, lambda done, message: percent(done / 2, message)) as work,
    ):
        folder, stem = folder or new_place("profiles", content), stem_of(source)
        plain = unpacked(work, limits.file_bytes)
        table = work.folder / "profiled"
        with Refusals(source, work.folder / "refused", max_refused) as refusals:
            done = convert(plain, kind_of(plain.file), table, refusals, Output("parquet"))
        found = profiled(work, table, done.columns, lambda share: percent(50 + share / 2, "profiling"))
        facts = {
            "source": source,
            "rows": done.rows,
            "refused": refusals.count,
            "warnings": [*done.warnings],
        }
        page, data = (f"{stem}.{suffix}" for suffix in ("html", "json"))
        with (
            storage.write_folder(folder, page, {page, data}.__contains__) as target,
            explained("write", folder),
        ):
            (target / data).write_bytes(json.dumps({**facts, "columns": found}, indent=1).encode())
            (target / page).write_bytes(rendered(facts, found).encode())
    current.progress(100, 100, "profiled")
    return {**facts, "path": f"{folder}/{page}", "json": f"{folder}/{data}", "columns": found[:LISTED]}
