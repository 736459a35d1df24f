"""`packmule files`: what jobs have made is listed, taken out and deleted, and nothing that a job needs."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import msgspec
import pytest

from packmule.jobs import keys
from packmule.jobs.client import Client
from packmule.jobs.files import file
from packmule.jobs.retention.scheduled import files_prune, keeping
from packmule.jobs.storage import Storage
from packmule.observe import audit
from packmule.tests.command_line import CommandLine, complaint, environment_in
from packmule.tests.jobs import sample_jobs
from packmule.units import DAY


@pytest.fixture
def packmule(server, client, tmp_path):
    return CommandLine(tmp_path, environment_in(tmp_path, server.url))


@pytest.fixture
def here(packmule, monkeypatch, capsys):
    return packmule.in_this_process(monkeypatch, capsys)


@pytest.fixture
def storage(packmule):
    return Storage(str(packmule.data_dir / "files"))


@pytest.fixture
def converted(packmule, client, tmp_path):
    """The id of a job that has converted a table of which a row was refused."""
    (tmp_path / "rain.csv").write_text("day,mm\n" + "1,2\n" * 500 + "x,y\n")
    with packmule.workers(lambda: client.scard(keys.WORKERS)):
        done = packmule.run(
            "enqueue", "file", "rain.csv", "--to", "parquet", "--column", "mm=BIGINT", "--wait"
        )
        assert done.returncode == 0, done.stderr
        path = msgspec.json.decode(done.stdout)["path"]
    return path.split("/")[1]


def age(storage: Storage, path: str, seconds: float) -> None:
    local = Path(storage.locate(path))
    at = local.stat().st_mtime - seconds
    os.utime(local, (at, at))


def test_the_files_of_a_job_are_listed_and_taken_out(here, storage, converted, tmp_path):
    listed = msgspec.json.decode(here("files", "ls", converted[:8], "--json").stdout)
    names = [f"converted/{converted}/rain.parquet", f"converted/{converted}/rain.parquet.refused.jsonl"]
    assert [each["path"] for each in listed] == names
    assert [each["bytes"] for each in listed] == [storage.size(name) for name in names]
    assert "2 files, " in here("files", "ls", "converted/").stdout
    done = here("files", "get", converted, "out")
    assert done.stdout.split() == ["out/rain.parquet", "out/rain.parquet.refused.jsonl"]
    assert (tmp_path / "out/rain.parquet").read_bytes() == storage.read_bytes(names[0])
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == [
        "rain.parquet",
        "rain.parquet.refused.jsonl",
    ]
    assert here("files", "get", converted, "out").stdout.count("(unchanged)") == 2


def test_what_is_not_there_is_one_line_and_a_folder_without_its_slash_too(here, storage):
    storage.write_bytes("converted/1/a.csv", b"x")
    for words in (["ls", "nope"], ["ls", "nope", "--json"], ["get", "nope", "out"], ["rm", "nope", "--yes"]):
        said = complaint(here("files", *words), 2)
        assert said.endswith("/ has no file nope, and no job has that id\n"), words
    for words in (["ls", "nope/"], ["get", "nope/", "out"], ["rm", "nope/", "--yes"]):
        assert "/ has no folder nope/, and no job has that id" in complaint(here("files", *words), 2), words
    for words in (["get", "converted/1", "out"], ["rm", "converted/1", "--yes"]):
        assert (
            complaint(here("files", *words), 2) == "packmule: converted/1 is a folder: write converted/1/\n"
        )
    assert "1 file, " in here("files", "ls", "converted/1").stdout
    assert here("files", "rm", "converted/1/", "--yes").returncode == 0
    empty = here("files", "ls")
    assert (empty.returncode, empty.stdout) == (0, "no files\n")
    assert msgspec.json.decode(here("files", "ls", "--json").stdout) == []


def test_a_strangers_file_stays_and_others_go_on(here, storage, tmp_path):
    storage.write_bytes("converted/1/a/x.csv", b"x")
    storage.write_bytes("converted/1/b/x.csv", b"other x")
    (tmp_path / "out/a").mkdir(parents=True)
    (tmp_path / "out/a/x.csv").write_bytes(b"mine")
    done = here("files", "get", "converted/1/", "out")
    assert done.returncode == 1
    assert "out/a/x.csv exists: use --overwrite, or another folder" in done.stderr
    assert (tmp_path / "out/a/x.csv").read_bytes() == b"mine"
    assert (tmp_path / "out/b/x.csv").read_bytes() == b"other x"
    assert here("files", "get", "converted/1/", "out", "--overwrite").returncode == 0
    assert (tmp_path / "out/a/x.csv").read_bytes() == b"x"


def test_a_full_disk_and_a_long_name_are_one_line_and_leave_nothing(here, storage, tmp_path):
    storage.write_bytes("converted/1/big.bin", bytes(50_000))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        done = here("files", "get", "converted/1/big.bin", "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "can't write out/big.bin: File too large" in complaint(done, 1)
    assert list((tmp_path / "out").iterdir()) == []
    assert "File name too long" in complaint(here("files", "get", "converted/1/big.bin", "n" * 300), 1)
    assert "File name too long" in complaint(here("files", "get", f"converted/{'n' * 300}", "out"), 2)
    (tmp_path / "plain").write_text("a file")
    assert "plain" in complaint(here("files", "get", "converted/1/big.bin", "plain"), 2)


def test_what_a_job_names_that_has_not_ended_is_not_deleted(here, storage, client):
    for name in ("fetched/1/a.csv", "fetched/2/a.csv"):
        storage.write_bytes(name, b"x")
    Client(client).enqueue(file, "fetched/1/a.csv")
    assert "a job or a schedule still needs it: wait, or use --force" in complaint(
        here("files", "rm", "fetched/1/", "--yes"), 2
    )
    assert here("files", "rm", "fetched/2/a.csv", "--yes").stdout == "Deleted 1 file.\n"
    assert storage.names() == ["fetched/1/a.csv"]
    assert here("files", "rm", "fetched/1/", "--force", "--yes").stdout == "Deleted 1 file.\n"
    assert storage.names() == []
    found = [(each.action, dict(each.subject)) for each in audit.read(client)]
    assert found[-1] == ("files rm", {"names": ["fetched/1/"], "force": True, "deleted": 1})


def test_a_pruning_deletes_what_is_old_and_then_what_is_too_much(here, storage, client):
    for number, days in ((1, 40), (2, 10), (3, 5), (4, 0)):
        storage.write_bytes(f"converted/{number}/a.parquet", bytes(1000))
        age(storage, f"converted/{number}/a.parquet", days * DAY)
    storage.write_bytes("uploads/1/old.csv", b"x")
    age(storage, "uploads/1/old.csv", 400 * DAY)
    assert "say what to delete" in complaint(here("files", "gc"), 2)
    dry = here("files", "gc", "--older", "30d", "--dry-run").stdout
    assert "converted/1" in dry
    assert "Would delete 1 of 4 files, 1,000 of 4,000 bytes." in dry
    assert len(storage.names()) == 5
    assert list(audit.read(client)) == []
    assert "Deleted 1 of 4 files" in here("files", "gc", PACKMULE_FILES_KEEP="30d").stdout
    assert not Path(storage.locate("converted/1")).exists()
    pruned = msgspec.json.decode(here("files", "gc", "--above", "1500", "--json").stdout)
    assert (pruned["files"], pruned["deleted"], pruned["deleted_bytes"]) == (3, 2, 2000)
    assert storage.names() == ["converted/4/a.parquet", "uploads/1/old.csv"]
    here("files", "gc", "--older", "30d", "--uploads")
    assert storage.names() == ["converted/4/a.parquet"]
    here("files", "gc", "--above", "1")
    assert storage.names() == ["converted/4/a.parquet"], "it is younger than an hour"
    assert [each.action for each in audit.read(client)] == ["files gc"] * 4


@pytest.mark.parametrize(
    "args", [["unpacked/7/b/x.csv"], ["unpacked/7"], ["unpacked/7/"], [["a", {"b": "unpacked/7/x.csv"}]]]
)
def test_a_pruning_leaves_what_a_job_names_in_any_place(here, storage, client, args):
    for name in ("unpacked/7/x.csv", "unpacked/7/b/x.csv", "unpacked/8/x.csv"):
        storage.write_bytes(name, b"x")
        age(storage, name, 40 * DAY)
    Client(client).enqueue(sample_jobs.echo, *args)
    out = here("files", "gc", "--older", "30d").stdout
    assert "2 files kept, because jobs use them" in out
    assert storage.names() == ["unpacked/7/b/x.csv", "unpacked/7/x.csv"]


def test_workers_prune_as_the_scheduler_says(packmule, storage, client):
    storage.write_bytes("converted/1/a.parquet", bytes(1000))
    age(storage, "converted/1/a.parquet", 40 * DAY)
    packmule.environment["PACKMULE_FILES_KEEP"] = "30d"
    planned = keeping("low", 30.0 * DAY, None)
    assert planned.kwargs == {"keep": 30.0 * DAY, "most": None}
    with packmule.workers(lambda: client.scard(keys.WORKERS)):
        handle = Client(client).enqueue(files_prune, **planned.kwargs)
        assert handle.result(timeout=60) == {
            "files": 1,
            "bytes": 1000,
            "deleted": 1,
            "deleted_bytes": 1000,
            "used": 0,
        }
    assert storage.names() == []
    (entry,) = audit.read(client)
    assert (entry.action, entry.who) == ("files prune", audit.whoami())
    assert dict(entry.subject) == {
        "deleted": 1, "bytes": 1000, "places": 1, "first": ["converted/1"], "job": handle
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["ls", "../etc"], "is not a path in the storage"),
        (["get", "nothing", "out"], "has no file nothing, and no job has that id"),
        (["get", "nothing/", "out"], "has no folder nothing/"),
        (["rm", "../../etc/passwd", "--yes"], "is not a path in the storage"),
        (["gc", "--older", "soon"], "--older"),
    ],
)
def test_a_mistake_is_one_line(here, words, text):
    assert text in complaint(here("files", *words), 2)
