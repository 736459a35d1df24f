"""Arrow files and streams as a table, which a bounded process reads batch by batch."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from packmule.errors import UsageError
from packmule.jobs.files import scripts
from packmule.jobs.files.database import Database
from packmule.jobs.files.refusals import Refusals
from packmule.jobs.files.signatures import ARROW_STREAM, kind_of
from packmule.jobs.files.table import MAX_COLUMNS, Table, Work, check_width, columns_in
from packmule.units import GIB

if TYPE_CHECKING:
    import pyarrow

MEMORY = 2 * GIB
"""Bytes that the process may take beside the file: for a batch, and for what that unpacks to."""
LENT = "arrow_rows"
"""The name by which queries read the batches."""
PATIENCE = 10.0
"""Seconds for the process to end once nobody listens to it."""


class ArrowRefused(UsageError, ValueError):
    """An Arrow file is cut, damaged, or needs more than a job may use."""


def columns(work: Work, database: Database) -> Mapping[str, str]:
    """The columns and their types. Raises `ArrowRefused` and `TooWide`."""
    with _Batches(work) as batches:
        return batches.lend(database)


def count(work: Work, database: Database) -> int:
    """The number of rows, all of which are checked. Raises `ArrowRefused`."""
    del database
    with _Batches(work) as batches:
        return batches.count()


def tables(work: Work, database: Database, refusals: Refusals) -> Iterator[Table]:
    """The table, none of whose rows can be refused. Raises `ArrowRefused` and `TooWide`."""
    del refusals
    with _Batches(work) as batches:
        found = batches.lend(database)
        yield Table(LENT, {}, found, {}, begins=0, collect=lambda *_: batches.check())
        batches.check(is_whole=False)  # that may be why the table could not be read


class _Batches:
    """What queries read. Each time that they begin to, a process reads the file anew."""

    def __init__(self, work: Work) -> None:
        try:
            import pyarrow.ipc  # noqa: F401, PLC0415  an extra, loaded only for its files
        except ImportError:
            raise ArrowRefused(
                f"{work.source} is an Arrow file, and its reader isn't installed: "
                "pip install 'packmule[arrow]'"
            ) from None
        self._work = work
        self._report = work.folder / "read"
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: pyarrow.RecordBatchReader | None = None
        self._rows: int | None = None
        """How many rows were read from this process; None before the first."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def lend(self, database: Database) -> Mapping[str, str]:
        """Let queries read the rows as the table `LENT`, whose columns and types these are."""
        import pyarrow  # noqa: PLC0415

        try:
            self._begin()
        except (pyarrow.ArrowException, OSError):
            self.check(is_whole=False)
            raise self._refused() from None
        database.lend(LENT, self)
        found = columns_in(database, LENT)
        check_width(self._work.source, found)
        return found

    def count(self) -> int:
        """The number of rows."""
        with self._started(is_counting=True) as process:
            process.wait()
        return int(self._told()["rows"])

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        import pyarrow  # noqa: PLC0415

        reader = pyarrow.RecordBatchReader.from_batches(self._begin().schema, self._batches())
        return reader.__arrow_c_stream__(requested_schema)

    def check(self, *, is_whole: bool = True) -> None:
        """Raise `ArrowRefused` if the process has found a fault, or unless all rows were read."""
        process = self._process
        if process is None:
            return
        if process.stdout is not None:
            process.stdout.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)
        told = self._told()
        if is_whole and told["rows"] != self._rows:
            raise self._refused()

    def _begin(self) -> pyarrow.RecordBatchReader:
        """A reader from which nothing was read yet, or the last one if that is at work."""
        import pyarrow  # noqa: PLC0415

        if self._reader is None:
            self._process = self._started(is_counting=False)
            # One thread, and the system's allocator: Arrow's own has crashed beside threads that end.
            self._reader = pyarrow.ipc.open_stream(
                self._process.stdout,
                options=pyarrow.ipc.IpcReadOptions(use_threads=False),
                memory_pool=pyarrow.system_memory_pool(),
            )
        return self._reader

    def _batches(self) -> Iterator[pyarrow.RecordBatch]:
        if self._rows is not None:
            self._stop()
        self._rows = 0
        for batch in self._begin():
            self._rows += batch.num_rows
            yield batch

    def _started(self, *, is_counting: bool) -> subprocess.Popen[bytes]:
        self._report.unlink(missing_ok=True)
        wanted = {
            "source": str(self._work.file),
            "is_stream": kind_of(self._work.file).type == ARROW_STREAM,
            "max_columns": MAX_COLUMNS,
            "memory": MEMORY,
            "is_counting": is_counting,
            "report": str(self._report),
        }
        return scripts.started("arrow_batches.py", wanted)

    def _told(self) -> dict[str, Any]:
        """What the process has reported. Raises `ArrowRefused` if that is a fault, or if it has died."""
        try:
            told: dict[str, Any] = json.loads(self._report.read_bytes())
        except (OSError, ValueError):
            raise self._refused() from None
        if "error" in told:
            raise ArrowRefused(f"{self._work.source} {told['error']}")
        return told

    def _refused(self) -> ArrowRefused:
        code = self._process.returncode if self._process is not None else None
        return ArrowRefused(
            f"{self._work.source} can't be read as Arrow: its process has ended (exit code {code})"
        )

    def _stop(self) -> None:
        process, self._process, self._reader = self._process, None, None
        if process is not None:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
