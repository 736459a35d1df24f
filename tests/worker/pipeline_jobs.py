"""Jobs that are steps of the tests' pipelines: each reads `source` and writes below `out`."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from packmule import current, job
from packmule.jobs.pipelines import Pipeline, step
from packmule.jobs.storage import Storage


@job
def count(source: str) -> dict[str, Any]:
    """It writes nothing."""
    return {"source": source, "bytes": current.resource(Storage).size(source)}


@job
def upper(source: str, out: str) -> dict[str, Any]:
    storage = current.resource(Storage)
    path = out if "." in out.rpartition("/")[2] else f"{out}/upper.txt"
    storage.write_bytes(path, storage.read_bytes(source).upper())
    return {"source": source, "path": path}


@job
def copy(source: str, out: str) -> dict[str, Any]:
    """Its `out` is a file."""
    storage = current.resource(Storage)
    storage.write_bytes(out, storage.read_bytes(source))
    return {"source": source, "path": out}


@job
def parts(source: str, out: str, fails_unless: str = "") -> dict[str, Any]:
    """A file for each line; the first is there even if it fails."""
    storage = current.resource(Storage)
    paths = [f"{out}/{number}.txt" for number in range(len(storage.read_bytes(source).splitlines()))]
    for path, line in zip(paths, storage.read_bytes(source).splitlines(), strict=True):
        storage.write_bytes(path, line)
        if fails_unless and not Path(fails_unless).exists():
            raise ValueError("as it should")
    return {"source": source, "paths": paths}


@job
def slow(source: str, out: str, notes: str) -> dict[str, Any]:
    current.resource(Storage).write_bytes(f"{out}/half.txt", b"half")
    Path(notes).touch()
    while True:
        time.sleep(0.05)


@job
async def awaited(source: str, out: str) -> dict[str, Any]:
    """On the event loop of its worker."""
    storage = current.resource(Storage)
    content = await asyncio.to_thread(storage.read_bytes, source)
    await asyncio.to_thread(storage.write_bytes, f"{out}/awaited.txt", content)
    return {"source": source, "path": f"{out}/awaited.txt"}


@job(singleton=True)
def alone(source: str, out: str) -> dict[str, Any]:
    """One at a time in the whole cluster."""
    return copy(source, f"{out}/alone.txt")


@job
def beside(source: str, out: str) -> dict[str, Any]:
    """It writes beside its folder."""
    storage = current.resource(Storage)
    path = f"{out.rpartition('/')[0]}/beside.txt"
    storage.write_bytes(path, storage.read_bytes(source))
    return {"source": source, "path": path}


@job
def silent(source: str, out: str) -> None:
    """It writes beside its folder, too, and in it, and says neither."""
    storage = current.resource(Storage)
    storage.write_bytes(f"{out.rpartition('/')[0]}/stray/it.txt", b"stray")
    storage.write_bytes(f"{out}/it.txt", b"it")


@job
def member(source: str, out: str, fails_unless: str = "") -> dict[str, Any]:
    """For a file of an archive: it writes two, between which that with the content "bad" fails."""
    storage = current.resource(Storage)
    storage.write_bytes(f"{out}/half.txt", b"half")
    content = storage.read_bytes(source)
    if content == b"bad" and not (fails_unless and Path(fails_unless).exists()):
        raise ValueError("it is bad")
    storage.write_bytes(f"{out}/whole.txt", content.upper())
    return {"path": f"{out}/whole.txt"}


@job
def gated(source: str, out: str, notes: str, gate: str) -> dict[str, Any]:
    """It writes a half, notes that it has begun, and writes the whole once the gate is there."""
    storage = current.resource(Storage)
    storage.write_bytes(f"{out}/half.txt", b"half")
    with Path(notes).open("a") as file:
        file.write("begun\n")
    while not Path(gate).exists():
        time.sleep(0.02)
        current.checkpoint(0)
    storage.write_bytes(f"{out}/whole.txt", storage.read_bytes(source))
    return {"source": source, "path": f"{out}/whole.txt"}


def cut() -> None:
    """What happens between the two files of `cut_off`."""


@job
def cut_off(source: str, out: str) -> dict[str, Any]:
    """A file for each line; something happens behind the first."""
    storage = current.resource(Storage)
    paths = []
    for number, line in enumerate(storage.read_bytes(source).splitlines()):
        paths.append(f"{out}/{number}.txt")
        storage.write_bytes(paths[-1], line)
        cut()
    return {"source": source, "paths": paths}


simple = Pipeline("simple", count, step(upper, out="{stem}.up"), step(parts, reads="upper"))


@job(queue="nowhere")
def astray(source: str) -> None:
    """Its queue isn't there."""
