"""A full disk, a source that vanishes, a long name: one line says what to do, and the next file goes on."""

from __future__ import annotations

import gc
import gzip
import json
import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from packmule.jobs.files import convert, file, storing
from packmule.jobs.storage import MissingFile, StorageError, StorageFull
from packmule.tests.jobs.stores import stored

LIMIT = 100_000_000
ROWS = "a,b,c\n" + "".join(f"{i},{i * 7919 % 100_003},{i / 7}\n" for i in range(60_000))
OBJECTS = [json.dumps({"a": i, "b": "x" * 30}) for i in range(40_000)]


@pytest.fixture
def storage(tmp_path):
    return stored(tmp_path / "files", LIMIT)


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of 1 MB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=True)
    yield folder
    gc.collect()  # an error's frames may hold a file there
    subprocess.run(["umount", str(folder)], check=True)


def files_in(folder: Path) -> list[str]:
    return sorted(str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file())


BIG = {
    "utf-16": ROWS.encode("utf-16"),
    "compressed": gzip.compress(ROWS.encode()),
    "quotes in a title": b'Pipes of 6" and "more\n' + ROWS.encode(),
    "refused rows": (ROWS + "".join(f"{i},2\n" for i in range(20_000))).encode(),
    "a bad line of JSON": "\n".join([*OBJECTS, "{bad"]).encode(),
    "a bad object of JSON": ("[" + ",\n".join([*OBJECTS, "{bad}"]) + "]").encode(),
}


@pytest.mark.parametrize("case", BIG)
def test_a_full_temporary_folder_is_named_and_the_next_file_goes_on(storage, small_disk, monkeypatch, case):
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    storage.write_bytes("a.csv", BIG[case])
    with pytest.raises(StorageFull) as failed:
        file("a.csv", to="parquet", out="o.parquet", max_refused=10**6)
    assert str(failed.value) == (
        f"a.csv can't be converted: there is no space left in {small_disk}: "
        "free some, or set TMPDIR to a folder with more"
    )
    assert files_in(small_disk) == []
    assert storage.names() == ["a.csv"]
    storage.write_bytes("b.csv", "a,b\n1,é\n".encode("utf-16"))
    assert file("b.csv", to="parquet")["rows"] == 1


@pytest.mark.parametrize(
    "out", ["o.csv", "o.json", "o.csv.gz", "o.parquet", "o.xlsx", "o.ods", "o.arrow", "parts"]
)
def test_a_full_storage_is_named_and_the_next_file_goes_on(small_disk, out):
    storage = stored(small_disk / "files", LIMIT)
    wide = "a,b,c\n" + "".join(f"{i % 5},{os.urandom(300).hex()},{i / 7}\n" for i in range(850))
    storage.write_bytes("a.csv", wide.encode())
    with pytest.raises(StorageFull) as failed:
        for number in range(9):  # the first may fit
            file(
                "a.csv",
                out=f"{number}{out}",
                **({"to": "csv", "partition_by": ["a"]} if out == "parts" else {}),
            )
    assert str(failed.value).startswith("a.csv can't be converted: there is no space left in ")
    assert str(small_disk) in str(failed.value)
    assert "\n" not in str(failed.value)
    assert files_in(small_disk / "files/.tmp") == []
    storage.delete("a.csv")
    storage.write_bytes("b.csv", b"a,b\n1,2\n")
    assert file("b.csv", out="o.csv")["rows"] == 1


@pytest.mark.parametrize(("module", "step"), [(storing, "kind_of"), (storing, "convert"), (convert, "copy")])
def test_a_source_that_vanishes_is_reported_in_one_line(storage, monkeypatch, module, step):
    taken = getattr(module, step)

    def without_source(*arguments):
        storage.delete("a.csv")
        return taken(*arguments)

    storage.write_bytes("a.csv", ROWS.encode())
    monkeypatch.setattr(module, step, without_source)
    with pytest.raises(MissingFile, match=r"^a.csv vanished while it was read: store it again, and"):
        file("a.csv", to="parquet", out="o.parquet")
    assert storage.names() == []
    monkeypatch.undo()
    storage.write_bytes("b.csv", ROWS.encode())
    assert file("b.csv", to="parquet")["rows"] == 60_000


@pytest.mark.parametrize("options", [{}, {"to": "parquet"}])
def test_a_source_with_a_name_of_300_bytes_is_reported_in_one_line(storage, options):
    name = "x" * 296 + ".csv"
    with pytest.raises(StorageError) as failed:
        file(name, **options)
    assert name in str(failed.value)
    assert "\n" not in str(failed.value)


def test_a_timeout_is_not_taken_for_a_fault_of_the_system(storage, monkeypatch):
    def timed_out(*_):
        raise TimeoutError("it took too long")

    storage.write_bytes("a.csv", ROWS.encode())
    monkeypatch.setattr(storing, "convert", timed_out)
    with pytest.raises(TimeoutError, match="it took too long"):
        file("a.csv", to="parquet")
