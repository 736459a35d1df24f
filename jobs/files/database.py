"""DuckDB for one job: in memory, bounded, interruptible, and limited to the job's own files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packmule.errors import Error

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MEMORY = "512MB"
SPILL = "4GB"
"""What a query may write to disk beside its output."""

THREADS = 2
POLL = 0.05
"""Seconds between two checks of a query's progress."""


CLOSE_SECONDS = 30.0


class QueryFailed(Error):
    """A query failed; the text is DuckDB's reason in one line."""


class Database:
    """A connection whose queries run in another thread, so that the calling thread can be interrupted."""

    def __init__(self, connection: DuckDBPyConnection) -> None:
        self._connection = connection

    def run(
        self, sql: str, parameters: object = None, report: Callable[[float], None] | None = None
    ) -> list[tuple[Any, ...]]:
        """The rows of `sql`; `report` gets the percentage done, about twenty times a second.

        If a signal or timeout raises an exception here, the query is stopped before the exception continues.
        In the calling thread the query would be one long call that no Python signal handler can interrupt.
        Raises `QueryFailed`.
        """
        with ThreadPoolExecutor(1, "duckdb") as executor:
            query = executor.submit(self._fetched, sql, parameters)
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

    def _fetched(self, sql: str, parameters: object) -> list[tuple[Any, ...]]:
        from duckdb import Error  # noqa: PLC0415  keeps workers that convert nothing small

        try:
            return self._connection.execute(sql, parameters).fetchall()
        except (Error, RuntimeError) as error:
            raise QueryFailed(_reason(error)) from error


@contextmanager
def opened(folder: Path, files: Iterable[Path]) -> Iterator[Database]:
    """A database that may read and write only `files` and spills to `folder`; closed at the end.

    The configuration is locked, extensions are off, and memory, threads and spilled bytes are bounded, which
    limits what a hostile file can make DuckDB do.
    """
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
    try:
        connection.execute("SET allowed_paths = $files", {"files": [str(file) for file in files]})
        for setting in (
            f"max_temp_directory_size = '{SPILL}'",  # DuckDB ignores it in the config
            "enable_progress_bar = true",
            "enable_progress_bar_print = false",
            "enable_external_access = false",
            "lock_configuration = true",
        ):
            connection.execute(f"SET {setting}")
        yield Database(connection)
    finally:
        _close(connection)


def _close(connection: DuckDBPyConnection) -> None:
    """Close it, once no query runs: a signal can raise before `run` knows the thread that it has started."""
    import duckdb  # noqa: PLC0415

    ends = time.monotonic() + CLOSE_SECONDS
    while True:
        try:
            return connection.close()
        except duckdb.Error:  # it is busy
            if time.monotonic() > ends:
                raise
        connection.interrupt()
        time.sleep(POLL)


def _reason(error: Exception) -> str:
    """The first line of DuckDB's message, without the error's class name."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    _, separator, reason = line.partition(" Error: ")
    return reason if separator else line


def quoted(name: str) -> str:
    """`name` as an SQL identifier: `quoted('a"b') == '"a""b"'`."""
    return '"' + name.replace('"', '""') + '"'
