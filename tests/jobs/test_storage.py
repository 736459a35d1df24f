"""Storage: paths inside the root, whole files or none, and the same behaviour behind an fsspec URL."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import pytest

from packmule.jobs.storage import FileTooLarge, MissingFile, OutsideStorage, Storage, StorageError, owners
from packmule.tests.jobs.stores import full_disk

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "store"


@pytest.fixture(params=["folder", "file URL", "memory", "S3"])
def storage(request, folder):
    if request.param == "S3":
        return Storage(f"s3://{request.getfixturevalue('bucket')}/files")
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


def test_a_deleted_file_is_gone_and_no_other(storage):
    storage.write_bytes("b/a.txt", b"1")
    storage.write_bytes("b/c.txt", b"2")
    assert storage.delete("b/a.txt")
    assert not storage.delete("b/a.txt")
    assert not storage.delete("b")
    assert storage.names() == ["b/c.txt"]


def test_a_folder_is_moved_whole_and_deleted_with_all_below_it(storage):
    for name in ("old/a.txt", "old/deep/b.txt", "old/last.json", "older/c.txt"):
        storage.write_bytes(name, name.encode())
    storage.move_folder("old", "new/place", "last.json")
    assert storage.names() == [
        "new/place/a.txt",
        "new/place/deep/b.txt",
        "new/place/last.json",
        "older/c.txt",
    ]
    assert storage.read_bytes("new/place/deep/b.txt") == b"old/deep/b.txt"
    with pytest.raises(MissingFile, match="older has no last"):
        storage.move_folder("older", "newer", "last.json")
    storage.delete_folder("new")
    storage.delete_folder("nowhere")
    assert storage.names() == ["older/c.txt"]


@pytest.mark.parametrize(
    "name", ["photo[1].jpg", "what?", "a*b", "**", "[x", "{a,b}", "a%20b", "a#b", "~", "$HOME"]
)
def test_a_folder_is_moved_whatever_its_files_are_called(storage, name):
    names = [f"old {name}/{name}/{name}", f"old {name}/{name}.txt", f"old {name}/last.json"]
    for each in [*names, f"old {name}x/other"]:
        storage.write_bytes(each, each.encode())
    storage.move_folder(f"old {name}", f"new {name}", "last.json")
    moved = sorted(each.replace("old", "new", 1) for each in names)
    assert storage.names("new ") == moved
    assert [storage.read_bytes(each).decode() for each in moved] == [
        each.replace("new", "old", 1) for each in moved
    ]
    storage.delete_folder(f"new {name}")
    assert storage.names() == [f"old {name}x/other"]


def test_a_folder_never_takes_the_place_of_another(folder):
    storage = Storage(str(folder))
    for name in ("old/last.json", "new/last.json"):
        storage.write_bytes(name, name.encode())
    with pytest.raises(StorageError, match="can't move old"):
        storage.move_folder("old", "new", "last.json")
    assert storage.read_bytes("new/last.json") == b"new/last.json"


def test_what_is_deleted_leaves_no_empty_folders_but_those_at_the_top(folder):
    storage = Storage(str(folder))
    for name in ("results/a/b/1/x", "results/a/b/2/x", "results/a/c/3/x", "uploads/1/x", "top"):
        storage.write_bytes(name, b"x")
    storage.delete_folder("results/a/b/1")
    storage.delete("uploads/1/x")
    storage.delete("top")
    assert sorted(each.name for each in folder.iterdir()) == [".tmp", "results", "uploads"]
    assert list((folder / "uploads").iterdir()) == []
    storage.delete_folder("results/a/b/2")
    assert [each.name for each in (folder / "results/a").iterdir()] == ["c"]
    storage.delete_folder("results/a/c/3")
    assert list((folder / "results").iterdir()) == []
    storage.delete_folder("results")
    storage.delete_folder("results/a")
    assert sorted(each.name for each in folder.iterdir()) == [".tmp", "uploads"]


def test_a_file_is_written_into_a_folder_that_others_empty_all_the_time(folder):
    storage, is_over = Storage(str(folder)), threading.Event()

    def write(number: int) -> None:
        for turn in range(150):
            storage.write_bytes(f"made/here/{number}.{turn}", b"x")
            storage.delete(f"made/here/{number}.{turn}")

    def remove() -> None:
        while not is_over.is_set():
            with suppress(OSError):
                (folder / "made/here").rmdir()
            time.sleep(0.0002)  # others are to get a turn

    with ThreadPoolExecutor(4) as threads:
        removing = threads.submit(remove)
        try:
            list(threads.map(write, range(3)))
        finally:
            is_over.set()
        removing.result()
    assert storage.names() == []


def test_a_link_that_leads_out_can_not_be_used_to_delete(tmp_path, folder):
    storage = Storage(str(folder))
    storage.write_bytes("a.txt", b"1")
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/b.txt").write_text("b")
    (folder / "out").symlink_to(tmp_path / "precious")
    with pytest.raises(OutsideStorage):
        storage.delete("out/b.txt")
    assert (tmp_path / "precious/b.txt").exists()


def test_a_file_has_another_version_when_it_was_written_again(storage):
    assert storage.version("a.txt") is None
    seen = set()
    for content in (b"1", b"2", b"22"):
        storage.write_bytes("a.txt", content)
        seen.add(storage.version("a.txt"))
        assert storage.version("a.txt") in seen
    assert len(seen) == 3


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
    with full_disk(10_000), pytest.raises(StorageError, match=r"can't write big\.bin: File too large"):
        Storage(str(folder)).write_bytes("big.bin", bytes(20_000))
    assert Storage(str(folder)).names() == []
    assert unfinished(folder) == []


def write_and_be_killed(folder: Path, program: str) -> None:
    """Run a program that writes to the storage at `folder` in a block at its end, and kill it in there."""
    whole = (
        f"import sys, time\nfrom packmule.jobs.storage import Storage\n{program}"
        "    print('written', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", whole, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "written\n"
        writer.send_signal(signal.SIGKILL)


def test_what_is_written_is_synced_with_each_name_that_leads_to_it(folder, monkeypatch):
    storage, synced, sync = Storage(str(folder)), [], os.fsync

    def noted(number: int) -> None:
        path = Path(f"/proc/self/fd/{number}").readlink()
        synced.append("file" if path.parent.name == ".tmp" else str(path.relative_to(folder)))
        sync(number)

    def syncs(path: str) -> list[str]:
        synced.clear()
        storage.write_bytes(path, b"x")
        return synced

    monkeypatch.setattr(os, "fsync", noted)
    assert syncs("a/b/one") == ["file", "a/b", "a", "."]
    assert syncs("a/b/two") == ["file", "a/b"]
    assert syncs("a/c/one") == ["file", "a/c", "a"]
    synced.clear()
    with storage.together():
        for number in range(3):
            storage.write_bytes(f"a/d/{number}", b"x")
        assert synced == ["file"] * 3
    assert synced == ["file"] * 3 + ["a/d", "a"]
    Storage(str(folder)).write_bytes("a/b/three", b"x")
    assert synced[-3:] == ["a/b", "a", "."], "another process can't know that they are"
    shutil.rmtree(folder / "a")
    assert syncs("a/b/one") == ["file", "a/b", "a", "."], "they are others of the same names"
    (folder / "a").rename(folder / "old")
    Storage(str(folder)).write_bytes("a/b/one", b"x")
    assert syncs("a/b/one") == ["file", "a/b", "a", "."], "another process made them"


def test_a_killed_writer_leaves_no_file(folder):
    program = "with Storage(sys.argv[1]).write('a.txt') as file:\n    file.write_bytes(bytes(1_000_000))\n"
    write_and_be_killed(folder, program)
    storage = Storage(str(folder))
    assert not storage.exists("a.txt")
    assert storage.names() == []
    assert len(unfinished(folder)) == 1
    with storage.write("b.txt") as living:
        living.write_bytes(b"b")
        assert storage.remove_unfinished() == 1
        assert unfinished(folder) == [living]
    storage.write_bytes("a.txt", b"again")
    assert storage.read_bytes("a.txt") == b"again"


def test_what_another_machine_has_begun_is_left_for_a_day_and_folders_for_ever(folder, monkeypatch):
    storage = Storage(str(folder))
    assert storage.remove_unfinished() == 0
    (folder / ".tmp/spill").mkdir(parents=True)
    machine, process, start = owners.owner().split("-")
    for name in (f"1.{'0' * 12}-{process}-{start}.jpg", "2.jpg", "3", f"4.{machine}-x-1.jpg", "5.\udcff.jpg"):
        (folder / ".tmp" / name).write_bytes(b"x")
    assert storage.remove_unfinished() == 0
    for name in (f"6.{machine}-{process}-1.jpg", f"7.{machine}-999999999-1.jpg"):
        (folder / ".tmp" / name).write_bytes(b"x")
    assert storage.remove_unfinished() == 2
    for each in (folder / ".tmp").iterdir():
        os.utime(each, (1, 1))  # as a copy that keeps the time of its source
    assert storage.remove_unfinished() == 0
    monkeypatch.setattr(owners, "FORGOTTEN", -1.0)
    assert storage.remove_unfinished() == 5
    assert [each.name for each in unfinished(folder)] == ["spill"]


def fill(storage, path, *names, last="list"):
    with storage.write_folder(path, last) as folder:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(name)


def test_a_written_folder_appears_whole_and_replaces_an_older_one(storage):
    fill(storage, "out/a", "b/c.txt", "d.txt", "list")
    assert storage.names() == ["out/a/b/c.txt", "out/a/d.txt", "out/a/list"]
    fill(storage, "out/a", "e.txt", "list")
    assert storage.names() == ["out/a/e.txt", "out/a/list"]
    assert storage.read_bytes("out/a/e.txt") == b"e.txt"


def test_a_folder_that_is_not_finished_is_none(storage, folder):
    with pytest.raises(ZeroDivisionError), storage.write_folder("out/a", "list") as begun:
        (begun / "list").write_text("x")
        raise ZeroDivisionError
    with pytest.raises(StorageError, match="nothing was written for out/a"):
        fill(storage, "out/a", "b.txt")
    assert storage.names() == []
    assert not folder.exists() or unfinished(folder) == []


def test_a_folder_with_other_files_is_not_replaced(storage):
    storage.write_bytes("out/a.txt", b"mine")
    storage.write_bytes("b", b"mine")
    for path in ("out", "out/a.txt", "b"):
        with pytest.raises(StorageError, match=path):
            fill(storage, path, "list")
    assert storage.names() == ["b", "out/a.txt"]


def test_a_folder_in_which_others_have_put_files_is_not_replaced(storage):
    for name in ("made/a.txt", "made/a-1.png", "made/b/c.csv"):
        storage.write_bytes(name, b"x")

    def write(**more):
        with storage.write_folder("made", "a.txt", **more) as local:
            (local / "a.txt").write_bytes(b"new")

    with pytest.raises(StorageError, match=r"can't write the folder made: b/c\.csv is there, too"):
        write(ours=lambda name: name.startswith("a"))
    assert storage.names() == ["made/a-1.png", "made/a.txt", "made/b/c.csv"]
    assert storage.read_bytes("made/a.txt") == b"x"
    storage.delete("made/b/c.csv")
    write(ours=lambda name: name.startswith("a"))
    assert (storage.names(), storage.read_bytes("made/a.txt")) == (["made/a.txt"], b"new")


def test_a_killed_writer_of_a_folder_leaves_nothing_that_stays(folder):
    program = (
        "with Storage(sys.argv[1]).write_folder('a', 'list') as folder:\n"
        "    (folder / 'deep').mkdir()\n"
        "    (folder / 'deep/file').write_bytes(b'x')\n"
    )
    write_and_be_killed(folder, program)
    storage = Storage(str(folder))
    assert storage.names() == []
    with storage.write_folder("b", "list") as living:
        (living / "list").touch()
        assert storage.remove_unfinished() == 1
        assert unfinished(folder) == [living]


def test_what_a_kill_has_left_of_a_folder_elsewhere_is_replaced(monkeypatch):
    from packmule.jobs.storage.remote import RemoteStore

    storage = Storage(f"memory://{uuid4().hex}/files")
    upload, uploads = RemoteStore._upload, iter(range(3))

    def broken_off(*args):
        if next(uploads, None) is None:
            raise KeyboardInterrupt
        upload(*args)

    with monkeypatch.context() as killed:
        killed.setattr(RemoteStore, "delete_folder", lambda self, path: None)  # it is dead by then
        killed.setattr(RemoteStore, "_upload", broken_off)
        with pytest.raises(KeyboardInterrupt):
            fill(storage, "out/a", "b.txt", "c.txt", "d.txt", "list")
    assert storage.exists("out/a/b.txt")
    assert not storage.exists("out/a/list")
    fill(storage, "out/a", "e.txt", "list")
    assert storage.names() == ["out/a/e.txt", "out/a/list"]


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
