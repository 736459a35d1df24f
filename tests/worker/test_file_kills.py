"""Processes that are killed while they divide a table or profile it: its outputs are whole or absent."""

from __future__ import annotations

import json
import os
import random
import signal
from collections import Counter
from contextlib import suppress
from functools import partial
from pathlib import Path

import duckdb
import pytest

from packmule.jobs import reader
from packmule.jobs.files import file, profile
from packmule.jobs.storage import Storage
from packmule.tests.worker.pools import children_of, ended, is_alive, pool, until

pytestmark = pytest.mark.usefixtures("produce")

ROWS, PARTS = 200_000, 50
JOBS = 12
"""Each third one is killed three times, which fails it; the others twice."""


@pytest.fixture
def storage(tmp_path, monkeypatch):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    found = Storage(str(tmp_path / "store"))
    lines = [f"{number % PARTS},{number},{number * 7 % 1009}.5" for number in range(ROWS)]
    found.write_bytes("uploads/1/a.csv", "\n".join(["part,n,x", *lines, ""]).encode())
    return found


def isolated(running) -> list[int]:
    """The processes of isolated jobs, two floors below a pool."""
    found = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for worker in children_of(running.pid):
            found += children_of(worker)
    return found


def is_writing(tmp_path: Path, is_divided: bool) -> bool:
    """Whether partitions are being written, or the table that a profile measures, or the page of that."""
    if is_divided:
        return any(tmp_path.glob("store/.tmp/*.new/part=*"))
    return any(tmp_path.glob("tmp/packmule-*/profiled")) or any(tmp_path.glob("store/.tmp/*.new"))


def kill(running, is_at_it, has_ended, dice: random.Random) -> bool:
    """Kill the job's process at any time, or once it is at it, and maybe the worker's; False if it ended."""
    until(lambda: isolated(running) or has_ended())
    if dice.random() < 0.6:
        until(lambda: is_at_it() or has_ended())
        until(lambda: dice.random() < 0.5 or has_ended())
    else:
        until(lambda: dice.random() < 0.01 or has_ended())
    pids = isolated(running)
    if has_ended() or not pids:
        return False
    if dice.random() < 0.3:
        pids += children_of(running.pid)
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until(lambda: not any(map(is_alive, pids)))
    return True


def test_partitions_and_profiles_are_whole_or_absent(server, client, storage, tmp_path):
    """One that dies for the third time before it is acknowledged has failed, though it may be whole."""
    dice, kills, ends = random.Random(1), 0, Counter[str]()
    with pool(server, storage=tmp_path / "store") as running:
        for number in range(JOBS):
            is_divided = number % 2 == 0
            if is_divided:
                id = file.enqueue("uploads/1/a.csv", to="parquet", partition_by=["part"])
            else:
                id = profile.enqueue("uploads/1/a.csv")
            for _ in range(3 if number % 3 == 2 else 2):
                kills += kill(
                    running,
                    partial(is_writing, tmp_path, is_divided),
                    lambda id=id: reader.read(client, id).has_ended,
                    dice,
                )
            status = ended(client, id).status
            ends[status] += 1
            kind = "converted" if is_divided else "profiles"
            names = [name.removeprefix(f"{kind}/{id}/") for name in storage.names(f"{kind}/{id}/")]
            if names or status == "finished":
                (check_partitions if is_divided else check_profile)(storage, f"{kind}/{id}", names)
        until(lambda: not any(tmp_path.glob("store/.tmp/*")) and not any(tmp_path.glob("tmp/packmule-*")))
    assert kills >= JOBS, ends
    assert ends["finished"] >= JOBS // 2


def check_partitions(storage, place: str, names: list[str]) -> None:
    manifest = json.loads(storage.read_bytes(f"{place}/a/manifest.json"))
    assert names == sorted(["a/manifest.json", *(f"a/{each['path']}" for each in manifest["files"])])
    table = storage.locate(f"{place}/a/*/*.parquet")
    found = duckdb.sql(f"SELECT count(*), sum(n) FROM read_parquet('{table}')").fetchall()
    assert found == [(ROWS, ROWS * (ROWS - 1) // 2)]


def check_profile(storage, place: str, names: list[str]) -> None:
    assert names == ["a.html", "a.json"]
    assert json.loads(storage.read_bytes(f"{place}/a.json"))["rows"] == ROWS
    assert storage.read_bytes(f"{place}/a.html").rstrip().endswith(b"</html>")
