"""DuckDB for one job: in memory, bounded, interruptible, and limited to the job's own files."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from packmule.errors import Error
from packmule.jobs.storage.store import NO_SPACE

if TYPE_CHECKING:
    import pyarrow
    from duckdb import DuckDBPyConnection

T = TypeVar("T")

MEMORY = "460MB"
"""What DuckDB counts. Python, libraries and what the allocator holds back are 100 MB more."""
SPILL = "4GB"
"""What a query may write to disk beside its output."""

THREADS = 2
STREAMED = 2_000
"""Rows of a streamed result that are fetched at once."""
BATCHED = 65_536
"""Rows of a batch of Arrow's."""
POLL = 0.05
"""Seconds between two checks of a query's progress."""


CLOSE_SECONDS = 30.0


class QueryFailed(Error):
    """A query failed; the text is DuckDB's reason in one line."""


class Database:
    """A connection whose queries run in another thread, so that the calling thread can be interrupted.

    It is made when the first of them runs: to inspect most files needs none.
    """

    def __init__(self, connect: Callable[[], DuckDBPyConnection]) -> None:
        self._connect = connect
        self.is_used = False

    @cached_property
    def _connection(self) -> DuckDBPyConnection:
        connection = self._connect()
        self.is_used = True
        return connection

    def close(self) -> None:
        """Close it, once no query runs: a signal can raise before `run` knows the thread that it started."""
        if not self.is_used:
            return
        import duckdb  # noqa: PLC0415

        ends = time.monotonic() + CLOSE_SECONDS
        while True:
            try:
                return self._connection.close()
            except duckdb.Error:  # it is busy
                if time.monotonic() > ends:
                    raise
            self._connection.interrupt()
            time.sleep(POLL)

    def run(
        self, sql: str, parameters: object = None, report: Callable[[float], None] | None = None
    ) -> list[tuple[Any, ...]]:
        """The rows of `sql`; `report` gets the percentage done, about twenty times a second.

        If a signal or timeout raises an exception here, the query is stopped before the exception continues.
        In the calling thread the query would be one long call that no Python signal handler can interrupt.
        Raises `QueryFailed`.
        """
        connection = self._connection
        return self._waited(lambda: connection.execute(sql, parameters).fetchall(), report)

    def stream(
        self, sql: str, parameters: object, report: Callable[[float], None]
    ) -> Iterator[list[tuple[Any, ...]]]:
        """Yield the rows of `sql` some at a time, so that they are never all in memory. Raises as `run`."""
        connection = self._connection
        self._waited(lambda: connection.execute(sql, parameters), report)
        while rows := self._waited(lambda: connection.fetchmany(STREAMED), report):
            yield rows

    def batches(
        self, sql: str, parameters: object, report: Callable[[float], None]
    ) -> tuple[pyarrow.Schema, Iterator[pyarrow.RecordBatch]]:
        """The columns of `sql`, and its rows in Arrow's batches as they come. Raises as `run`."""
        reader = self._waited(
            lambda: self._connection.sql(sql, params=parameters).to_arrow_reader(BATCHED), report
        )

        def following() -> pyarrow.RecordBatch | None:
            try:
                return next(reader, None)
            except (OSError, ValueError) as error:  # DuckDB's, as Arrow has it
                raise RuntimeError(str(error)) from error

        def rows() -> Iterator[pyarrow.RecordBatch]:
            while (batch := self._waited(following, report)) is not None:
                yield batch

        return reader.schema, rows()

    def lend(self, name: str, rows: object) -> None:
        """Let queries read `rows`, a stream of Arrow's, as the table `name`. Raises `QueryFailed`."""
        _explained(lambda: self._connection.register(name, rows))

    def _waited(self, work: Callable[[], T], report: Callable[[float], None] | None) -> T:
        with ThreadPoolExecutor(1, "duckdb") as executor:
            query = executor.submit(_explained, work)
            try:
                while not wait([query], POLL).done:
                    if report is not None:
                        # -1 until the query has begun.
                        report(max(self._connection.query_progress(), 0.0))
            finally:
                # Repeated, because a query that hasn't begun yet can't be interrupted.
                while not query.done():
                    self._connection.interrupt()
                    wait([query], POLL)
            return query.result()

    def forget_rejects(self) -> None:
        """Forget the rows that reads with `store_rejects` have refused."""
        for table in ("reject_errors", "reject_scans"):
            self.run(f"DROP TABLE IF EXISTS {table}")


def _explained(work: Callable[[], T]) -> T:
    from duckdb import Error  # noqa: PLC0415  keeps workers that convert nothing small

    try:
        return work()
    except (Error, RuntimeError) as error:
        # Another way to read the table would need as much space.
        for number in NO_SPACE:
            if (reason := os.strerror(number)) in str(error):
                raise OSError(number, reason) from error
        raise QueryFailed(_reason(error)) from error


@contextmanager
def opened(folder: Path, files: Iterable[Path], below: Path | None = None) -> Iterator[Database]:
    """A database that may read and write only `files` and what is `below`, and spills to `folder`.

    It is closed at the end.

    The configuration is locked, extensions are off, and memory, threads and spilled bytes are bounded, which
    limits what a hostile file can make DuckDB do.
    """
    database = Database(lambda: _connected(folder, files, below))
    try:
        yield database
    finally:
        database.close()


def _connected(folder: Path, files: Iterable[Path], below: Path | None) -> DuckDBPyConnection:
    import duckdb  # noqa: PLC0415  keeps workers that convert nothing small

    connection = duckdb.connect(
        config={
            "memory_limit": MEMORY,
            "threads": THREADS,
            "temp_directory": str(folder / "spilled"),
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
            "allow_persistent_secrets": False,
        }
    )
    allowed = [str(file) for file in files]
    if below is not None:
        allowed.append(str(below))
        connection.execute("SET allowed_directories = $folders", {"folders": [str(below)]})
    connection.execute("SET allowed_paths = $files", {"files": allowed})
    for setting in (
        f"max_temp_directory_size = '{SPILL}'",  # DuckDB ignores it in the config
        "enable_progress_bar = true",
        "enable_progress_bar_print = false",
        "enable_external_access = false",
        "TimeZone = 'UTC'",  # of the machine otherwise
        "lock_configuration = true",
    ):
        connection.execute(f"SET {setting}")
    return connection


def _reason(error: Exception) -> str:
    """The first line of DuckDB's message, without the error's class name."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    _, separator, reason = line.partition(" Error: ")
    return reason if separator else line


def quoted(name: str) -> str:
    """`name` as an SQL identifier: `quoted('a"b') == '"a""b"'`."""
    return '"' + name.replace('"', '""') + '"'
