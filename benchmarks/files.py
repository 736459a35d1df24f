"""The file job's CSV to Parquet beside other ways to read one: MB/s, and peak memory of a process of its own.

    python benchmarks/files.py [megabytes] [runs]

The file (200 MB unless said) is made anew, of numbers, dates, instants, truth values and quoted texts. Each
way runs in a fresh process, once to warm the page cache and then `runs` times (3 unless said), by turns with
the others; the median is printed. Time is from the call to a Parquet file in zstd (for the `csv` module: to
the last row read, the floor of what pure Python could do), imports not included. RSS is the process's peak.
Peers that are not installed are left out.
"""

from __future__ import annotations

import csv
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
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

    from packmule.jobs import current
    from packmule.jobs.files import file
    from packmule.jobs.input_limits import InputLimits
    from packmule.jobs.storage import Storage

    current.provide(Storage(str(folder)), InputLimits(10**12, 1, 1))
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


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package) if package else platform.python_version()
    except importlib.metadata.PackageNotFoundError:
        return None


def main(megabytes: int, runs: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = generate(folder / "source.csv", megabytes * MB)
        size = (folder / "source.csv").stat().st_size / MB
        cores = len(os.sched_getaffinity(0))
        print(f"{size:.0f} MB of CSV, {rows:,} rows; Python {platform.python_version()}, {cores} cores\n")
        found = {way: version(package) for way, (_, package) in WAYS.items()}
        figures: dict[str, list[dict[str, float]]] = {way: [] for way, known in found.items() if known}
        for run in range(runs + 1):
            for way, measured in figures.items():
                done = subprocess.run(
                    [sys.executable, __file__, "--measure", way, name],
                    env={**os.environ, "PYTHONPATH": str(ROOT)},
                    stdout=subprocess.PIPE,
                    check=True,
                )
                figure = json.loads(done.stdout)
                if figure["rows"] != rows:
                    raise SystemExit(f"{way} wrote {figure['rows']} rows of {rows}")
                if run:
                    measured.append(figure)
        print(f"{'':24}{'version':>10}{'MB/s':>8}{'s':>8}{'RSS MB':>8}")
        for way, measured in figures.items():
            seconds = statistics.median(figure["seconds"] for figure in measured)
            rss = statistics.median(figure["rss"] for figure in measured)
            print(f"{way:24}{found[way]:>10}{size / seconds:8.0f}{seconds:8.2f}{rss:8.0f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2], Path(sys.argv[3]))
    else:
        main(*(int(argument) for argument in [*sys.argv[1:], *("200", "3")[len(sys.argv) - 1 :]]))
