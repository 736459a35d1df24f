"""The unpack job beside zipfile and tarfile: files a second, MB/s, and processor time.

    python benchmarks/unpack.py [megabytes] [files] [rounds]

Two ZIPs and two tars in gzip are unpacked: one of `files` small members (5,000 of 4 kB by default), one of
large members with `megabytes` in all (400). The contents shrink to about a half. The ways take turns. The
bare tool is `extractall`, which syncs nothing; `synced` is the same with what the job does at its end, so
that its files survive a loss of power. CPU is that of user and system together.
"""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import statistics
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable
from functools import partial
from io import BytesIO
from itertools import count
from pathlib import Path

from harness import arguments, by_turns, machine, ratio, table

MB = 1_000_000


def contents(number: int, size: int) -> list[tuple[str, bytes]]:
    """Files whose bytes are half noise and half not."""
    noise = random.Random(7)
    return [
        (f"d{at % 50}/f{at}.bin", b"".join(noise.randbytes(50) + bytes(50) for _ in range(size // 100)))
        for at in range(number)
    ]


def pack(path: Path, files: list[tuple[str, bytes]]) -> None:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
            for name, content in files:
                archive.writestr(name, content)
        return
    with tarfile.open(path, "w:gz", compresslevel=6) as archive:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, BytesIO(content))


def bare(source: Path, target: Path) -> None:
    if source.suffix == ".zip":
        with zipfile.ZipFile(source) as archive:
            archive.extractall(target)
    else:
        with tarfile.open(source) as archive:
            archive.extractall(target, filter="data")


def synced(source: Path, target: Path) -> None:
    bare(source, target)
    descriptor = os.open(target, os.O_RDONLY)
    ctypes.CDLL(None).syncfs(descriptor)
    os.close(descriptor)


def ours(source: Path, target: Path) -> None:
    from packmule.jobs.files import unpack

    unpack(source.name, target.name)


def timed(way: Callable[[Path, Path], None], source: Path, numbers: count[int]) -> tuple[float, float]:
    """The seconds, and those of the processor, that a way takes for an archive."""
    target = source.parent / f"out-{next(numbers)}"
    began, used = time.perf_counter(), time.process_time()
    way(source, target)
    figures = time.perf_counter() - began, time.process_time() - used
    shutil.rmtree(target)
    os.sync()  # so that no way writes what another has left
    return figures


def main(megabytes: int, number: int, rounds: int) -> None:
    """Measure and print."""
    from packmule.jobs import context
    from packmule.jobs.input_limits import InputLimits
    from packmule.jobs.storage import Storage

    print(f"{machine()}\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        context.provide(Storage(name), InputLimits(10**12, 1, 1, 10**12, 10**6))
        small, large = contents(number, 4_000), contents(10, megabytes * MB // 10)
        lines, numbers = [], count()
        for suffix in (".zip", ".tar.gz"):
            for kind, files in (("small", small), ("large", large)):
                source = folder / f"{kind}{suffix}"
                pack(source, files)
                size = sum(len(content) for _, content in files)
                ways = {
                    way: partial(timed, run, source, numbers)
                    for way, run in (("bare", bare), ("synced", synced), ("unpack", ours))
                }
                found = by_turns(ways, rounds + 1)
                figures = {way: each[1:] for way, each in found.items()}
                for way, each in figures.items():
                    seconds, cpu = (statistics.median(one[at] for one in each) for at in (0, 1))
                    shares = [
                        f"{ratio([one[at] for one in figures[other]], [one[at] for one in each]):.0%}"
                        for other, at in (("bare", 0), ("synced", 0), ("bare", 1))
                    ]
                    lines.append(
                        (
                            f"{source.name}, {way}",
                            f"{len(files) / seconds:,.0f}",
                            f"{size / seconds / MB:.0f}",
                            f"{cpu:.2f}",
                            *shares,
                        )
                    )
    table(("", "files/s", "MB/s", "CPU s", "of bare", "of synced", "of bare CPU"), lines)


if __name__ == "__main__":
    main(*map(int, arguments(400, 5_000, 5)))
