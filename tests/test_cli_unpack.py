"""`packmule enqueue unpack` beside real workers: files in the storage, a job for each, and kills amidst."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from redis import Redis

from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.jobs import keys, reader
from packmule.jobs.batch import Batch
from packmule.jobs.storage import Storage
from packmule.tests.command_line import CommandLine, Run, complaint, environment_in, until
from packmule.tests.jobs.archives import sevenzipped, tarred, zipped
from packmule.tests.worker.pools import children_of

LOAD = """

@job
def load(path: str, suffix: str = "") -> str:
    return path + suffix
"""
TABLES = {"b/orders.csv": b"id,price\n1,2.5\n", "parts.csv": b"id,name\n7,bolt\n"}


@pytest.fixture
def packmule(server: EmbeddedServer, tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path, environment_in(tmp_path, server.url, LOAD))


@pytest.fixture
def here(packmule: CommandLine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return packmule.in_this_process(monkeypatch, capsys)


@pytest.fixture
def storage(packmule: CommandLine) -> Storage:
    return Storage(str(packmule.data_dir / "files"))


@pytest.fixture
def workers(packmule: CommandLine, client: Redis) -> Iterator[None]:
    with packmule.workers(lambda: client.scard(keys.WORKERS)):
        yield


def test_tables_in_a_7z_become_arrow_and_opendocument(packmule, workers, tmp_path):
    (tmp_path / "a.7z").write_bytes(sevenzipped(TABLES.items()))
    result = json.loads(packmule.output("enqueue", "unpack", "a.7z", "--wait"))
    assert result["members"] == len(TABLES)
    table = f"store:{next(path for path in result['paths'] if path.endswith('orders.csv'))}"
    for format in ("arrows", "arrow", "ods"):
        made = json.loads(packmule.output("enqueue", "file", table, "--to", format, "--wait"))
        assert (made["rows"], made["format"], made["warnings"]) == (1, format, [])
        table = f"store:{made['path']}"
    assert json.loads(packmule.output("enqueue", "file", table, "--wait"))["rows"] == 1


def test_members_become_files(packmule, workers, storage, tmp_path):
    (tmp_path / "a.zip").write_bytes(zipped(TABLES.items()))
    result = json.loads(packmule.output("enqueue", "unpack", "a.zip", "--wait"))
    assert {
        path.partition("/")[2].partition("/")[2]: storage.read_bytes(path) for path in result["paths"]
    } == TABLES
    (tmp_path / "evil.zip").write_bytes(zipped([("../evil", b"x")]))
    failed = packmule.run("enqueue", "unpack", "evil.zip", "--wait")
    assert failed.returncode == 1
    assert "../evil can't be unpacked: its path leads out of the folder" in failed.stderr
    assert len(failed.stderr.splitlines()) == 1


def test_each_member_becomes_a_job_of_a_flow(packmule, workers, storage, client, tmp_path):
    (tmp_path / "a.zip").write_bytes(zipped(TABLES.items()))
    (tmp_path / "b.tar.gz").write_bytes(tarred([("more.csv", b"x,y\n1,2\n")], ".gz"))
    done = packmule.run(
        "enqueue", "unpack", "a.zip", "b.tar.gz", "--each", "file", "--with", "to=parquet", "--wait"
    )
    assert done.returncode == 0, done.stderr
    assert sorted(name.rpartition("/")[2] for name in storage.names("converted/")) == [
        "more.parquet", "orders.parquet", "parts.parquet",
    ]  # fmt: skip
    id = packmule.output("enqueue", "unpack", "a.zip", "--each", "shop.load", "--with", "suffix=!")
    state = Batch(client, id).wait(60)
    assert state.counts == (4, 4, 0, 0)
    loaded = [reader.read(client, job.decode()) for job in client.hkeys(f"{keys.batch_key(id)}:jobs")]
    assert sorted(job.result.rpartition("/")[2] for job in loaded if job.name == "shop.load") == [
        "orders.csv!", "parts.csv!",
    ]  # fmt: skip


def test_a_job_for_each_is_checked_before_anything_is_copied(here, storage, tmp_path):
    (tmp_path / "a.zip").write_bytes(zipped(TABLES.items()))
    assert "shop.nothing is not a registered job" in complaint(
        here("enqueue", "unpack", "a.zip", "--each", "shop.nothing"), 2
    )
    assert "to" in complaint(here("enqueue", "unpack", "a.zip", "--each", "file", "--with", "to=pdf"), 2)
    assert "--with is for" in complaint(here("enqueue", "unpack", "a.zip", "--with", "to=parquet"), 2)
    assert storage.names() == []


def test_each_member_alone_makes_one_flow_however_often_it_runs(packmule, workers, storage, client):
    storage.write_bytes(
        "u/members.jsonl", b'{"name":"a","path":"a","bytes":1}\n{"name":"l","refused":"it is a link"}\n'
    )
    call = ("enqueue", "call", "packmule.jobs.files.unpacking.each.each_member", "source=u", "each=shop.load")
    first = json.loads(packmule.output(*call, "--job-id", "once", "--wait"))
    assert (first["jobs"], first["flow"]) == (1, "once-members")
    packmule.output("job", "delete", "once")
    again = json.loads(packmule.output(*call, "--job-id", "once", "--wait"))
    assert again == first
    assert Batch(client, "once-members").wait(60).counts == (1, 1, 0, 0)


def test_kills_amidst_leave_all_files_and_jobs_each_once(packmule, storage, client, tmp_path):
    files = {f"f{number}": os.urandom(10_000) for number in range(1_500)}
    (tmp_path / "a.zip").write_bytes(zipped(files.items()))
    unfinished = packmule.data_dir / "files/.tmp"
    batch = Batch(client, packmule.output("enqueue", "unpack", "a.zip", "--each", "shop.load"))
    log = (tmp_path / "log").open("w")
    with log, packmule.started("worker", "--processes", "2", stderr=log) as pool:
        until(lambda: [*unfinished.glob("*.new")], "the folder that is being filled")
        kill_children(pool.pid)
        assert not [name for name in storage.names() if name.startswith("unpacked/")]
        until(lambda: batch.state().counts.total > 2, "the jobs of the members")
        kill_children(pool.pid)
        assert batch.wait(120).counts == (1_502, 1_502, 0, 0)
        until(lambda: not [*unfinished.iterdir()], "the end of what the killed have left")
    [listing] = [name for name in storage.names("unpacked/") if name.endswith("/members.jsonl")]
    folder = listing.removesuffix("members.jsonl")
    assert {
        name.removeprefix(folder): storage.read_bytes(name)
        for name in storage.names(folder)
        if name != listing
    } == files


def kill_children(pool: int) -> None:
    """Kill a pool's processes, and those of their isolated jobs."""
    for worker in children_of(pool):
        for each in (*children_of(worker), worker):
            with suppress(ProcessLookupError):  # a job's process that has just ended
                os.kill(each, signal.SIGKILL)
