"""The file job's CSV to Parquet beside other ways to read one: MB/s, processor time, and peak memory.

    python benchmarks/files.py [megabytes] [runs]
    python benchmarks/files.py --memory [megabytes ...]
    python benchmarks/files.py --inspect [megabytes] [runs]

The file (200 MB by default) holds numbers, dates, instants, truth values and quoted texts. Each way runs in a
fresh process, once to warm the page cache and then `runs` times (3 by default), by turns with the others; the
median is printed. Time is from the call to a Parquet file in zstd (for the `csv` module: to the last row
read, the floor of what pure Python could do), imports not included. CPU is the processor time of all threads
meanwhile, and RSS the process's peak. Peers that are not installed are left out. With `--memory`, the job
alone converts files of several sizes (10, 100, 1000 and 5000 MB by default), to show that its memory doesn't
grow with them. With `--inspect`, the job says what the file is, beside hashlib's SHA-256 of the same file.
"""

from __future__ import annotations

import csv
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

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


def file_job(folder: Path) -> Callable[..., dict[str, Any]]:
    import duckdb  # noqa: F401  imports are not timed

    from packmule.jobs import context
    from packmule.jobs.files import file
    from packmule.jobs.input_limits import InputLimits
    from packmule.jobs.storage import Storage

    context.provide(Storage(str(folder)), InputLimits(10**12, 1, 1))
    return partial(file, "source.csv")


def ours(folder: Path) -> Callable[[], int]:
    convert = file_job(folder)
    return lambda: int(convert(to="parquet", out="out.parquet")["rows"])


def inspection(folder: Path) -> Callable[[], int]:
    inspect = file_job(folder)
    return lambda: int(inspect()["sha256"], 16)


def bare_hash(folder: Path) -> Callable[[], int]:
    def run() -> int:
        with (folder / "source.csv").open("rb") as file:
            return int(hashlib.file_digest(file, "sha256").hexdigest(), 16)

    return run


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
INSPECTIONS: dict[str, tuple[Callable[[Path], Callable[[], int]], str]] = {
    "inspection": (inspection, ""),
    "SHA-256 alone": (bare_hash, ""),
}


def measure(way: str, folder: Path) -> None:
    """Run once in this process and print the seconds, the result and the peak memory."""
    run = (WAYS | INSPECTIONS)[way][0](folder)
    started, used = time.perf_counter(), time.process_time()
    result = run()
    seconds, cpu = time.perf_counter() - started, time.process_time() - used
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    print(json.dumps({"seconds": seconds, "cpu": cpu, "result": result, "rss": peak / 1000}))


def measured(way: str, folder: Path, expected: int) -> dict[str, float]:
    """The figures of one run in a fresh process."""
    command = [sys.executable, __file__, "--measure", way, str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    figure: dict[str, float] = json.loads(done.stdout)
    if figure["result"] != expected:
        raise SystemExit(f"{way} has {figure['result']} and not {expected}")
    return figure


def main(megabytes: int, runs: int) -> None:
    """Measure conversions, and print."""
    with source(megabytes) as (folder, rows):
        ours, bare, *_ = compared(WAYS, folder, rows, runs)
    shares = (f"{middle(bare, name) / middle(ours, name):.0%}" for name in ("seconds", "cpu"))
    print("\nThe file job has {} of DuckDB's speed, and {} by processor time.".format(*shares))


def inspect(megabytes: int, runs: int) -> None:
    """Measure inspections, and print."""
    with source(megabytes) as (folder, _):
        ours, bare = compared(INSPECTIONS, folder, bare_hash(folder)(), runs)
    shares = (f"{middle(bare, name) / middle(ours, name):.0%}" for name in ("seconds", "cpu"))
    print("\nAn inspection has {} of SHA-256's speed, and {} by processor time.".format(*shares))


@contextmanager
def source(megabytes: int) -> Iterator[tuple[Path, int]]:
    """A folder with the file, and its rows."""
    with tempfile.TemporaryDirectory() as name:
        rows = generate(Path(name) / "source.csv", megabytes * MB)
        yield Path(name), rows


def compared(
    ways: Mapping[str, tuple[Callable[[Path], Callable[[], int]], str]],
    folder: Path,
    expected: int,
    runs: int,
) -> list[list[dict[str, float]]]:
    """The figures of each way's runs, all of which have the expected result; prints their medians."""
    size = (folder / "source.csv").stat().st_size / MB
    print(f"{machine('duckdb', 'polars', 'pyarrow')}; {size:.0f} MB of CSV\n")
    there = {
        way: partial(measured, way, folder, expected)
        for way, (_, package) in ways.items()
        if not package or has(package)
    }
    figures = {way: found[1:] for way, found in by_turns(there, runs + 1).items()}
    lines = []
    for way, found in figures.items():
        seconds, cpu, rss = (middle(found, name) for name in ("seconds", "cpu", "rss"))
        lines.append((way, f"{size / seconds:.0f}", f"{seconds:.2f}", f"{cpu:.2f}", f"{rss:.0f}"))
    table(("", "MB/s", "s", "CPU s", "RSS MB"), lines)
    return [*figures.values()]


def memory(sizes: list[int]) -> None:
    """Measure the job's peak memory by the file's size, and print it."""
    print(f"{machine('duckdb')}\n")
    lines = []
    for size in sizes:
        with source(size) as (folder, rows):
            figure = measured("file job", folder, rows)
        lines.append((f"{size:,} MB", f"{rows:,}", f"{figure['seconds']:.1f}", f"{figure['rss']:.0f}"))
    table(("file", "rows", "s", "RSS MB"), lines)


def middle(found: list[dict[str, float]], name: str) -> float:
    """The median of a figure."""
    return statistics.median(each[name] for each in found)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2], Path(sys.argv[3]))
    elif sys.argv[1:2] == ["--memory"]:
        memory([int(each) for each in sys.argv[2:]] or [10, 100, 1000, 5000])
    elif sys.argv[1:2] == ["--inspect"]:
        del sys.argv[1]
        inspect(*arguments(200, 3))
    else:
        main(*arguments(200, 3))
