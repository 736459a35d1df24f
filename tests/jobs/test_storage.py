"""Storage: paths inside the root, whole files or none, and the same behaviour behind an fsspec URL."""

from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import pytest

from packmule.jobs.storage import FileTooLarge, MissingFile, OutsideStorage, Storage, StorageError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "store"


@pytest.fixture(params=["folder", "file URL", "memory"])
def storage(request, folder):
    return Storage(
        {"folder": str(folder), "file URL": folder.as_uri(), "memory": f"memory://{uuid4().hex}/files"}[
            request.param
        ]
    )


def unfinished(folder: Path) -> list[Path]:
    return list((folder / ".tmp").iterdir())


def test_a_written_file_is_read_and_listed(storage):
    storage.write_bytes("b/deep/two.txt", b"22")
    storage.write_bytes("a.txt", b"1")
    storage.write_bytes("a.txt", b"one")
    assert storage.names() == ["a.txt", "b/deep/two.txt"]
    assert storage.names("b/") == storage.names("b/de") == ["b/deep/two.txt"]
    assert storage.names("c/") == []
    assert storage.read_bytes("a.txt") == b"one"
    assert storage.size("b/deep/two.txt") == 2
    assert storage.exists("a.txt")
    assert not storage.exists("b/deep")
    with storage.read("b/deep/two.txt") as file:
        assert file.suffix == ".txt"
        assert file.read_bytes() == b"22"


def test_a_missing_file_is_named(storage):
    for ask in (storage.read_bytes, storage.size):
        with pytest.raises(MissingFile, match=r"uploads/a\.jpg"):
            ask("uploads/a.jpg")
    assert not storage.exists("uploads/a.jpg")


def test_a_file_over_the_limit_is_refused_with_both_sizes(storage):
    storage.write_bytes("a.bin", bytes(2000))
    assert len(storage.read_bytes("a.bin", max_bytes=2000)) == 2000
    with pytest.raises(FileTooLarge, match=r"a.bin has 2,000 bytes.* 1,999"):
        storage.read_bytes("a.bin", max_bytes=1999)


def test_a_failed_write_leaves_the_old_file(storage):
    storage.write_bytes("a.txt", b"old")
    with pytest.raises(RuntimeError), storage.write("a.txt") as file:
        file.write_bytes(b"ne")
        raise RuntimeError
    assert storage.read_bytes("a.txt") == b"old"
    assert storage.names() == ["a.txt"]


def test_writing_nothing_is_an_error(storage):
    with pytest.raises(StorageError, match=r"nothing was written for a\.txt"), storage.write("a.txt"):
        pass
    assert storage.names() == []


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "../x",
        "a/../../x",
        "a/..",
        "a//b",
        "a/",
        "./a",
        "a\\b",
        "a\0b",
        "a\nb",
        ".tmp/x",
        "\udc80",
    ],
)
def test_a_path_that_is_not_plain_and_relative_is_refused(storage, path):
    with pytest.raises(OutsideStorage):
        storage.read_bytes(path)
    with pytest.raises(OutsideStorage):
        storage.write_bytes(path, b"x")
    for ask in (storage.exists, storage.size, storage.locate):
        with pytest.raises(OutsideStorage):
            ask(path)


def test_links_that_lead_out_are_refused_and_not_listed(tmp_path, folder):
    storage = Storage(str(folder))
    storage.write_bytes("real.txt", b"in")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_text("secret")
    (folder / "link.txt").symlink_to(outside / "secret.txt")
    (folder / "door").symlink_to(outside)
    (folder / "dangling.txt").symlink_to(outside / "new.txt")
    (folder / "inner.txt").symlink_to("real.txt")
    (folder / "loop").symlink_to("loop")
    for path in ("link.txt", "door/secret.txt", "dangling.txt"):
        with pytest.raises(OutsideStorage, match=path):
            storage.read_bytes(path)
        with pytest.raises(OutsideStorage, match=path):
            storage.write_bytes(path, b"overwritten")
    with pytest.raises(StorageError, match="loop"):
        storage.read_bytes("loop")
    assert (outside / "secret.txt").read_text() == "secret"
    assert sorted(path.name for path in outside.iterdir()) == ["secret.txt"]
    assert storage.names() == ["inner.txt", "real.txt"]
    assert storage.read_bytes("inner.txt") == b"in"


def test_a_link_created_while_writing_does_not_lead_out(tmp_path, folder):
    storage = Storage(str(folder))
    outside = tmp_path / "outside"
    outside.mkdir()
    with pytest.raises(OutsideStorage), storage.write("door/a.txt") as file:
        file.write_bytes(b"x")
        (folder / "door").symlink_to(outside)
    assert list(outside.iterdir()) == []


def test_a_temporary_folder_that_is_a_link_out_is_refused(tmp_path, folder):
    folder.mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    (folder / ".tmp").symlink_to(outside)
    with pytest.raises(OutsideStorage):
        Storage(str(folder)).write_bytes("a.txt", b"x")


def test_a_pipe_in_the_folder_does_not_count_as_a_file(folder):
    folder.mkdir()
    os.mkfifo(folder / "pipe")
    with pytest.raises(MissingFile):
        Storage(str(folder)).read_bytes("pipe")
    assert Storage(str(folder)).names() == []


def test_a_folder_or_file_in_the_way_is_reported(folder):
    storage = Storage(str(folder))
    storage.write_bytes("a/b.txt", b"x")
    with pytest.raises(StorageError, match="can't write a: it is a folder"):
        storage.write_bytes("a", b"x")
    with pytest.raises(StorageError, match=r"can't write a/b\.txt/c"):
        storage.write_bytes("a/b.txt/c", b"x")
    with pytest.raises(StorageError, match="can't"):
        storage.write_bytes("n" * 300, b"x")
    assert storage.names() == ["a/b.txt"]
    assert unfinished(folder) == []


def test_new_files_and_folders_follow_the_umask(folder):
    before = os.umask(0o027)
    try:
        Storage(str(folder)).write_bytes("a/b.txt", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((folder / "a/b.txt").stat().st_mode) == 0o640
    assert stat.S_IMODE((folder / "a").stat().st_mode) == 0o750


def test_a_full_disk_leaves_nothing_and_is_reported_in_one_line(folder):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(StorageError, match=r"can't write big\.bin: File too large"):
            Storage(str(folder)).write_bytes("big.bin", bytes(20_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert Storage(str(folder)).names() == []
    assert unfinished(folder) == []


def test_a_killed_writer_leaves_no_file(folder):
    program = (
        "import sys, time\n"
        "from packmule.jobs.storage import Storage\n"
        "with Storage(sys.argv[1]).write('a.txt') as file:\n"
        "    file.write_bytes(bytes(1_000_000))\n"
        "    print('written', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "written\n"
        writer.send_signal(signal.SIGKILL)
    storage = Storage(str(folder))
    assert not storage.exists("a.txt")
    assert storage.names() == []
    assert len(unfinished(folder)) == 1
    storage.write_bytes("a.txt", b"again")
    assert storage.read_bytes("a.txt") == b"again"


def test_readers_see_whole_files_while_writers_replace_them(storage):
    size = 300_000
    storage.write_bytes("a.bin", b"a" * size)

    def write(letter: bytes) -> None:
        for _ in range(20):
            storage.write_bytes("a.bin", letter * size)

    def read() -> list[bytes]:
        return [storage.read_bytes("a.bin") for _ in range(40)]

    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(write, letter) for letter in (b"b", b"c")]
        readers = [pool.submit(read) for _ in range(2)]
        for writer in writers:
            writer.result()
        contents = [content for reader in readers for content in reader.result()]
    assert all(len(content) == size and len(set(content)) == 1 for content in contents)


def test_a_forked_process_uses_the_store_that_its_parent_opened(storage):
    storage.write_bytes("a.txt", b"parent")
    child = os.fork()
    if child == 0:
        try:
            storage.write_bytes("b.txt", storage.read_bytes("a.txt"))
            os._exit(0 if storage.read_bytes("b.txt") == b"parent" else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_file_put_twice_is_stored_once_under_its_content(storage, tmp_path):
    local = tmp_path / "Käse & Brot?.final.jpg"
    local.write_bytes(b"bytes of a picture")
    path = storage.put(local)
    assert path == f"uploads/{sha256(b'bytes of a picture').hexdigest()[:16]}/Käse---Brot-.final.jpg"
    assert storage.put(local) == path
    assert storage.names() == [path]
    local.write_bytes(b"others")
    assert storage.put(local, "in/box") != path
    assert len(storage.names("in/box/")) == 1


@pytest.mark.parametrize(
    ("name", "stored"), [(".htaccess", "htaccess"), ("...", "file"), ("é" * 120 + ".csv", None)]
)
def test_an_odd_file_name_is_made_safe(folder, tmp_path, name, stored):
    local = tmp_path / name
    local.write_bytes(b"x")
    path = Storage(str(folder)).put(local)
    last = path.rpartition("/")[2]
    assert Storage(str(folder)).read_bytes(path) == b"x"
    assert last == stored or (stored is None and last.endswith(".csv") and len(last.encode()) <= 150)


def test_putting_a_path_that_is_not_a_file_is_refused(storage, tmp_path):
    for local in (tmp_path, tmp_path / "absent"):
        with pytest.raises(MissingFile, match=local.name):
            storage.put(local)
    with pytest.raises(OutsideStorage):
        (tmp_path / "a").write_bytes(b"x")
        storage.put(tmp_path / "a", "../up")


def test_a_location_is_complete_and_has_no_password(folder):
    assert Storage(str(folder)).locate("a/b.txt") == str(folder / "a/b.txt")
    assert Storage("ftp://user:hidden@host/x").locate("a/b.txt") == "ftp://user:***@host/x/a/b.txt"
    assert Storage("memory://").locate("a.txt") == "memory://a.txt"


def test_a_store_of_an_unknown_kind_is_refused_at_once():
    with pytest.raises(StorageError, match="nosuch://bucket"):
        Storage("nosuch://bucket")
