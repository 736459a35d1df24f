"""The beginning of a file for people to look at: first rows of a table, members of an archive, or its text.

`python -m packmule.jobs.files.sample FILE` prints it as JSON, in a process that can take little of a machine.
"""

from __future__ import annotations

import resource
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from packmule.errors import Error, UsageError
from packmule.jobs.files.convert import READERS, WORK_FILES, columns_of, first_fitting, working
from packmule.jobs.files.database import QueryFailed, opened, quoted
from packmule.jobs.files.reading import Reading
from packmule.jobs.files.refusals import Refusals
from packmule.jobs.files.signatures import Kind, has_small_directory, kind_of
from packmule.jobs.files.table import Table
from packmule.jobs.files.text import decoded_head
from packmule.jobs.files.zip_directory import opened as zip_opened
from packmule.units import GIB, KIB, MIB

MOST_ROWS, MOST_COLUMNS, MOST_MEMBERS = 20, 40, 100
LONGEST_CELL, LONGEST_TEXT = 200, 4_000

HEAD = 256 * KIB
"""Bytes of a file of lines that are read."""

CPU_SECONDS, MEMORY = 8, 2 * GIB
"""What the process may take; a file that needs more has no sample."""


class NoSample(UsageError, ValueError):
    """Nothing of a file can be shown; the text says why."""


class Member(msgspec.Struct, frozen=True):
    """A member of an archive: its name, and its size in bytes."""

    name: str
    bytes: int


class Sample(msgspec.Struct, frozen=True):
    """The beginning of a file of a media `type`.

    A table has `columns`, names and types, and `rows`; cells are cut at 200 characters. An archive has
    `members`, and other text its first lines as `text`. `total` is the number of rows or members in all, if
    it is known, and `has_more` says that there are more rows, columns, members or lines than these.
    """

    type: str
    columns: list[tuple[str, str]] = []
    rows: list[list[str | None]] = []
    members: list[Member] = []
    text: str = ""
    total: int | None = None
    has_more: bool = False


def sample(file: Path) -> Sample:
    """The beginning of `file`. Raises `NoSample`, or what a conversion of it would.

    >>> [name for name, _ in sample(Path("jobs/samples/weather.csv")).columns][:2]
    ['date', 'precipitation']
    """
    kind = kind_of(file)
    if kind.reader == "parquet":
        return _of_parquet(kind, file)
    if kind.reader in ("csv", "jsonl"):
        return _of_lines(kind, file)
    if kind.type in ("application/zip", "application/x-tar"):
        return _of_archive(kind, file)
    with file.open("rb") as content:
        head = content.read(HEAD)
    text = None if kind.type == "application/octet-stream" else decoded_head(head)
    if not text or not kind.type.startswith(("text/", "application/json", "application/xml")):
        raise NoSample(f"files of the type {kind.type} can't be previewed")
    return Sample(kind.type, text=text[:LONGEST_TEXT], has_more=len(head) == HEAD or len(text) > LONGEST_TEXT)


def _of_parquet(kind: Kind, file: Path) -> Sample:
    with working(file.name, file, Reading(), _nothing) as work:
        columns = columns_of(work, kind)
        with opened(work.folder, [work.file]) as database:
            source = {"source": str(work.file)}
            ((total,),) = database.run("SELECT sum(num_rows) FROM parquet_file_metadata($source)", source)
            shown = [*columns.items()][:MOST_COLUMNS]
            rows = database.run(_first_rows("read_parquet($source)", [name for name, _ in shown]), source)
    has_more = total > len(rows) or len(columns) > MOST_COLUMNS
    return Sample(kind.type, shown, [[*row] for row in rows], total=int(total), has_more=has_more)


def _of_lines(kind: Kind, file: Path) -> Sample:
    """The first lines, read as a conversion reads them; those that don't fit are left out."""
    with working(file.name, file, Reading(), _nothing) as work:
        with work.file.open("rb") as content:
            head = content.read(HEAD + 1)
        is_cut = len(head) > HEAD
        work.file.unlink()  # a link: the file itself stays
        work.file.write_bytes(head[: head.rfind(b"\n", 0, HEAD) + 1] if is_cut else head)
        reader = READERS[kind.reader or ""]
        files = [work.folder / name for name in WORK_FILES]
        with (
            Refusals(file.name, work.folder / "refused", None) as refusals,
            opened(work.folder, files) as database,
        ):

            def rows_of(table: Table) -> tuple[Mapping[str, str], list[tuple[Any, ...]]]:
                names = [*table.columns][:MOST_COLUMNS]
                query = _first_rows(table.relation, names, MOST_ROWS + 1)
                return table.columns, database.run(query, dict(table.parameters))

            tables = reader.tables(work, database, refusals)
            columns, rows = first_fitting(tables, database, refusals, rows_of)
    shown = [*columns.items()][:MOST_COLUMNS]
    has_more = is_cut or len(rows) > MOST_ROWS or len(columns) > MOST_COLUMNS
    return Sample(kind.type, shown, [[*row] for row in rows[:MOST_ROWS]], has_more=has_more)


def _first_rows(relation: str, columns: list[str], most: int = MOST_ROWS) -> str:
    cells = ", ".join(f"left({quoted(name)}::VARCHAR, {LONGEST_CELL})" for name in columns)
    return f"SELECT {cells or 'NULL'} FROM {relation} LIMIT {most}"  # noqa: S608  ours, and quoted


def _of_archive(kind: Kind, file: Path) -> Sample:
    try:
        if kind.type == "application/zip":
            with file.open("rb") as content:
                if not has_small_directory(content):
                    raise NoSample("the archive's directory is too large, or broken")
                with zip_opened(content) as archive:
                    found = archive.infolist()
            members = [Member(_name(each.filename), each.file_size) for each in found[:MOST_MEMBERS]]
            return Sample(kind.type, members=members, total=len(found), has_more=len(found) > MOST_MEMBERS)
        with tarfile.open(file, "r:") as tar:
            some = [Member(_name(each.name), each.size) for each in islice(tar, MOST_MEMBERS + 1)]
    except (OSError, EOFError, ValueError, RuntimeError, NotImplementedError, *_BROKEN) as error:
        raise NoSample(f"the archive can't be read: {error}") from None
    return Sample(kind.type, members=some[:MOST_MEMBERS], has_more=len(some) > MOST_MEMBERS)


_BROKEN = (zipfile.BadZipFile, tarfile.TarError)


def _name(text: str) -> str:
    """A member's name, which may hold bytes that are no text."""
    return text[:LONGEST_CELL].encode("utf-8", "replace").decode()


def _nothing(done: float, message: str) -> None:
    """A look reports no progress."""


def main() -> int:
    """Print the sample of the file that is named, or `{"reason": ...}`."""
    for limit, most in (
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_FSIZE, 16 * MIB),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(limit)
        resource.setrlimit(limit, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
    try:
        found: object = sample(Path(sys.argv[1]))
    except (Error, QueryFailed, OSError) as error:
        found = {"reason": str(error).replace(sys.argv[1], "the file")[:500]}
    sys.stdout.buffer.write(msgspec.json.encode(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
