"""The file job: detects what a file is, or converts a table to Parquet."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from time import monotonic
from typing import Any, Literal

from packmule.jobs import current
from packmule.jobs.files.convert import (
    ConversionFailed,
    EmptyFile,
    NotATable,
    columns_of,
    to_parquet,
    working,
)
from packmule.jobs.files.excel import WorkbookRefused
from packmule.jobs.files.jsonlines import UnfitKey
from packmule.jobs.files.refusals import Refusals, TooManyRefused
from packmule.jobs.files.signatures import kind_of
from packmule.jobs.files.table import CountMismatch, MismatchedColumns, TooWide
from packmule.jobs.files.text import UnreadableText
from packmule.jobs.input_limits import InputLimits
from packmule.jobs.job import job
from packmule.jobs.storage import FileTooLarge, MissingFile, OutsideStorage, Storage
from packmule.units import GIB, MIB

__all__ = [
    "ConversionFailed",
    "CountMismatch",
    "EmptyFile",
    "MismatchedColumns",
    "NotATable",
    "TooManyRefused",
    "TooWide",
    "UnfitKey",
    "UnreadableText",
    "WorkbookRefused",
    "file",
]

CHUNK = MIB
HOPELESS = (
    EmptyFile, MismatchedColumns, NotATable, TooManyRefused, TooWide, UnfitKey,
    UnreadableText, WorkbookRefused,
    MissingFile, OutsideStorage, FileTooLarge,
)  # fmt: skip


@job(
    queue="low",
    timeout=3600,
    retries=1,
    give_up_on=HOPELESS,
    isolate=True,
    max_memory=8 * GIB,
    max_cpu=14_400,  # for all its threads together
)
def file(
    source: str,
    to: Literal["parquet"] | None = None,
    out: str | None = None,
    *,
    columns: dict[str, str] | None = None,
    sheet: str | None = None,
    max_refused: int | None = None,
) -> dict[str, Any]:
    """Detect what the stored file `source` is, or with `to="parquet"` convert its table to Parquet (zstd).

    Without `to`, it returns the type by content (regardless of the name), the size in bytes, the SHA-256, and
    for CSV, JSON Lines, Excel and Parquet the columns with their types::

        {"source": "uploads/a.csv", "type": "text/csv", "bytes": 48219, "sha256": "0f5a...",
         "columns": [{"name": "date", "type": "DATE"}, ...]}

    With `to`, it converts CSV (any delimiter; UTF-8, UTF-16 or Windows-1252), JSON Lines, or the first sheet
    (or `sheet`) of an Excel or OpenDocument workbook. It writes `out`, by default
    `converted/<job id>/<source's stem>.parquet`. `columns` gives types by column name, such as
    `{"zip": "VARCHAR"}`; the others are detected. A row that doesn't fit is refused, not lost: all refused
    rows are in `<out>.refused.jsonl`, the first 100 in the result. More than `max_refused` fail the job::

        {"source": "uploads/a.csv", "path": "converted/7f0c/a.parquet", "rows": 1460, "refused": 1,
         "refusals": [{"line": 17, "column": "wind", "reason": "Could not convert string \"-\" to 'DOUBLE'",
                       "text": "2012/01/16,..."}],
         "refused_path": "converted/7f0c/a.parquet.refused.jsonl", "encoding": "utf-8",
         "columns": [{"name": "date", "type": "DATE"}, ...], "bytes": 16310, "seconds": 0.2}

    Raises `NotATable`, `EmptyFile`, `MismatchedColumns`, `TooManyRefused`, `TooWide`, `UnfitKey`,
    `UnreadableText`, `WorkbookRefused`, `ConversionFailed`, `CountMismatch`, `MissingFile`, `FileTooLarge`;
    then nothing is written.

    >>> file.enqueue("uploads/a.csv", to="parquet", columns={"zip": "VARCHAR"})  # doctest: +SKIP
    """
    storage, limits = current.resource(Storage), current.resource(InputLimits)
    with storage.read(source, limits.file_bytes) as content:
        if to is None:
            return _inspected(source, content, sheet)
        path = (
            out
            or f"converted/{current.job_id() or _sha256(content)[:16]}/{PurePosixPath(source).stem}.parquet"
        )
        return _converted(storage, source, content, path, columns, sheet, max_refused)


def _inspected(source: str, content: Path, sheet: str | None) -> dict[str, Any]:
    kind, size = kind_of(content), content.stat().st_size
    facts: dict[str, Any] = {"source": source, "type": kind.type, "bytes": size}
    if kind.reader is not None:
        with working(source, content, None, sheet, _nothing) as work:
            facts["columns"] = _listed(columns_of(work, kind))
    return {**facts, "sha256": _sha256(content, size)}


def _converted(
    storage: Storage,
    source: str,
    content: Path,
    path: str,
    columns: Mapping[str, str] | None,
    sheet: str | None,
    max_refused: int | None,
) -> dict[str, Any]:
    started = monotonic()
    refused_path = f"{path}.refused.jsonl"
    with working(source, content, columns, sheet, _percent) as work, storage.write(path) as target:
        with Refusals(source, work.folder / "refused", max_refused) as refusals:
            converted = to_parquet(work, kind_of(content), target, refusals)
        # Written first, so that the output never exists without it; an older run's report is replaced.
        if refusals.count or storage.exists(refused_path):
            with storage.write(refused_path) as report:
                shutil.copyfile(refusals.file, report)
        size = target.stat().st_size
    current.progress(100, 100, "converted")
    return {
        "source": source,
        "path": path,
        "rows": converted.rows,
        "refused": refusals.count,
        "refusals": refusals.first,
        **({"refused_path": refused_path} if refusals.count else {}),
        **converted.origin,
        "columns": _listed(converted.columns),
        "bytes": size,
        "seconds": round(monotonic() - started, 3),
    }


def _percent(done: float, message: str) -> None:
    current.progress(done, 100, message)


def _nothing(done: float, message: str) -> None:
    """No progress: inspecting reports the bytes hashed, and detecting columns is quick."""


def _listed(columns: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "type": kind} for name, kind in columns.items()]


def _sha256(content: Path, total: int | None = None) -> str:
    """The hexadecimal digest; with `total`, it reports the bytes hashed as progress."""
    digest = hashlib.sha256()
    with content.open("rb") as chunks:
        while chunk := chunks.read(CHUNK):
            digest.update(chunk)
            if total is not None:
                current.progress(chunks.tell(), total, "hashing")
    return digest.hexdigest()
