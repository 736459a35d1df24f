"""The file job's CSV to Parquet beside other ways to read one: MB/s, and peak memory of a process of its own.

    python benchmarks/files.py [megabytes] [runs]

The file (200 MB by default) holds numbers, dates, instants, truth values and quoted texts. Each way runs in a
fresh process, once to warm the page cache and then `runs` times (3 by default), by turns with the others; the
median is printed. Time is from the call to a Parquet file in zstd (for the `csv` module: to
the last row read, the floor of what pure Python could do), imports not included. RSS is the process's peak.
Peers that are not installed are left out.
"""

from __future__ import annotations

import csv
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from harness import arguments, by_turns, has, machine, table

MB = 1_000_000


def generate(path: Path, size: int) -> int:
    """Write about `size` bytes of CSV and return the rows."""
    rows = 0
    with path.open("w", encoding="utf-8") as file:
        file.write("id,name,day,at,price,ratio,active,note\n")
        while file.tell() < size:
            file.writelines(
                f'{i},"name {i * 7919 % 100_003}",20{i % 25:02d}-{i % 12 + 1:02d}-{i % 28 + 1:02d},'
                f"2020-01-01 {i % 24:02d}:{i % 60:02d}:00,{i * 31 % 1_000_003 / 100},{i / 7:.6f},"
                f'{"true" if i % 3 else "false"},"lorem ipsum, dolor {i % 977}"\n'
                for i in range(rows, rows + 10_000)
            )
            rows += 10_000
    return rows


def ours(folder: Path) -> Callable[[], int]:
    import duckdb  # noqa: F401  imports are not timed

    from packmule.jobs import context
    from packmule.jobs.files import file
    from packmule.jobs.input_limits import InputLimits
    from packmule.jobs.storage import Storage

    context.provide(Storage(str(folder)), InputLimits(10**12, 1, 1))
    return lambda: int(file("source.csv", to="parquet", out="out.parquet")["rows"])


def bare_duckdb(folder: Path) -> Callable[[], int]:
    import duckdb

    connection = duckdb.connect(config={"memory_limit": "512MB", "threads": 2})
    source, target = f"read_csv('{folder}/source.csv')", f"'{folder}/out.parquet'"
    sql = f"COPY (FROM {source}) TO {target} (FORMAT parquet, COMPRESSION zstd)"
    return lambda: int(connection.execute(sql).fetchone()[0])


def polars(folder: Path) -> Callable[[], int]:
    import polars

    def run() -> int:
        frame = polars.scan_csv(folder / "source.csv", try_parse_dates=True)
        frame.sink_parquet(folder / "out.parquet", compression="zstd")
        return int(polars.scan_parquet(folder / "out.parquet").select(polars.len()).collect().item())

    return run


def pyarrow(folder: Path) -> Callable[[], int]:
    import pyarrow.csv
    import pyarrow.parquet

    def run() -> int:
        reader = pyarrow.csv.open_csv(folder / "source.csv")
        rows = 0
        with pyarrow.parquet.ParquetWriter(
            folder / "out.parquet", reader.schema, compression="zstd"
        ) as writer:
            for batch in reader:
                writer.write_batch(batch)
                rows += batch.num_rows
        return rows

    return run


def floor(folder: Path) -> Callable[[], int]:
    def run() -> int:
        with (folder / "source.csv").open(newline="", encoding="utf-8") as file:
            return sum(1 for _ in csv.reader(file)) - 1

    return run


WAYS: dict[str, tuple[Callable[[Path], Callable[[], int]], str]] = {
    "file job": (ours, "duckdb"),
    "DuckDB alone": (bare_duckdb, "duckdb"),
    "polars sink": (polars, "polars"),
    "pyarrow stream": (pyarrow, "pyarrow"),
    "csv module, read only": (floor, ""),
}


def measure(way: str, folder: Path) -> None:
    """Run once in this process and print the seconds, the rows and the peak memory."""
    run = WAYS[way][0](folder)
    started = time.perf_counter()
    rows = run()
    seconds = time.perf_counter() - started
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    print(json.dumps({"seconds": seconds, "rows": rows, "rss": peak / 1000}))


def measured(way: str, folder: Path, rows: int) -> dict[str, float]:
    """The figures of one run in a fresh process."""
    command = [sys.executable, __file__, "--measure", way, str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    figure: dict[str, float] = json.loads(done.stdout)
    if figure["rows"] != rows:
        raise SystemExit(f"{way} wrote {figure['rows']} rows of {rows}")
    return figure


def main(megabytes: int, runs: int) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = generate(folder / "source.csv", megabytes * MB)
        size = (folder / "source.csv").stat().st_size / MB
        print(f"{machine('duckdb', 'polars', 'pyarrow')}; {size:.0f} MB of CSV, {rows:,} rows\n")
        ways = {
            way: partial(measured, way, folder, rows)
            for way, (_, package) in WAYS.items()
            if not package or has(package)
        }
        figures = {way: found[1:] for way, found in by_turns(ways, runs + 1).items()}
    lines = []
    for way, found in figures.items():
        seconds, rss = (statistics.median(each[name] for each in found) for name in ("seconds", "rss"))
        lines.append((way, f"{size / seconds:.0f}", f"{seconds:.2f}", f"{rss:.0f}"))
    table(("", "MB/s", "s", "RSS MB"), lines)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2], Path(sys.argv[3]))
    else:
        main(*arguments(200, 3))
