"""Temporary files of processes that were killed are removed, and never those of the living."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from packmule.jobs.storage import Storage, owners, temporary
from packmule.tests.worker.pools import until

HOLD = """
import sys, time
from packmule.jobs.storage import Storage, temporary
with Storage(sys.argv[1]).write("a.bin") as part, temporary.folder() as folder:
    part.write_bytes(b"half")
    (folder / "work").write_bytes(b"half")
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holding(tmp_path, monkeypatch):
    """A process in the midst of its work, the folder of its storage and that of its temporary files."""
    storage, elsewhere = tmp_path / "files", tmp_path / "tmp"
    elsewhere.mkdir()
    monkeypatch.setenv("TMPDIR", str(elsewhere))
    monkeypatch.setattr(tempfile, "tempdir", None)
    command = [sys.executable, "-c", HOLD, str(storage)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline().startswith(str(elsewhere).encode())
    yield process, storage, elsewhere
    process.kill()
    process.wait()
    process.stdout.close()


def left(*folders: Path) -> int:
    return sum(len(list(folder.iterdir())) for folder in folders if folder.exists())


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_has_stays(holding):
    process, files, elsewhere = holding
    storage = Storage(str(files))
    with storage.write("b.bin") as part, temporary.folder() as folder:
        part.write_bytes(b"mine")
        assert storage.remove_unfinished() == temporary.remove_folders(elsewhere) == 0
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (storage.remove_unfinished(), temporary.remove_folders(elsewhere)) == (1, 1)
        assert folder.is_dir()
    assert storage.names() == ["b.bin"]
    assert left(files / ".tmp", elsewhere) == 0


def test_a_process_that_has_ended_and_was_not_reaped_counts_as_dead(holding):
    process, files, elsewhere = holding
    os.kill(process.pid, signal.SIGKILL)
    until(lambda: Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z")
    assert (Storage(str(files)).remove_unfinished(), temporary.remove_folders(elsewhere)) == (1, 1)


def test_folders_of_other_machines_and_programs_and_links_stay(tmp_path):
    machine, pid, since = owners.owner().split("-")
    target = tmp_path / "target"
    target.mkdir()
    kept = [
        f"packmule-0123456789ab-{pid}-1.x",
        f"packmule-{machine}-{pid}-{since}.x",
        "packmule-notes",
        "a.b",
    ]
    dead = [f"packmule-{machine}-{pid}-1.x", f"packmule-{machine}-4194305-1.x"]
    for name in kept + dead:
        (tmp_path / name).mkdir()
    (tmp_path / f"packmule-{machine}-4194305-2.x").symlink_to(target)
    assert temporary.remove_folders(tmp_path) == len(dead)
    there = sorted(each.name for each in tmp_path.iterdir())
    assert there == sorted([*kept, "target", f"packmule-{machine}-4194305-2.x"])


def test_a_remover_works_in_a_thread_whenever_it_is_asked_to(holding):
    process, files, elsewhere = holding
    remover = temporary.Remover(Storage(str(files)).remove_unfinished)
    remover.soon()
    process.kill()
    process.wait()
    remover.soon()
    until(lambda: left(files / ".tmp", elsewhere) == 0)


def test_a_living_process_keeps_a_file_however_old(tmp_path, monkeypatch):
    storage = Storage(str(tmp_path))
    with storage.write("a.bin") as part:
        part.write_bytes(b"whole")
        os.utime(part, (1, 1))
        monkeypatch.setattr(owners, "FORGOTTEN", -1.0)
        assert storage.remove_unfinished() == 0
    assert storage.read_bytes("a.bin") == b"whole"


def test_files_behind_a_link_are_not_taken_for_unfinished_ones(tmp_path, monkeypatch):
    storage = Storage(str(tmp_path))
    storage.write_bytes("uploads/old.jpg", b"precious")
    (tmp_path / ".tmp").rmdir()
    (tmp_path / ".tmp").symlink_to("uploads")
    monkeypatch.setattr(owners, "FORGOTTEN", -1.0)
    assert storage.remove_unfinished() == 0
    assert storage.read_bytes("uploads/old.jpg") == b"precious"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says when a process started")
@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENOMEM, errno.EACCES, errno.ENOENT])
def test_a_process_that_does_not_say_when_it_started_counts_as_living(holding, monkeypatch, error):
    process, files, elsewhere = holding
    storage, read_text = Storage(str(files)), Path.read_text

    def refuse(path: Path, *args: object, **more: object) -> str:
        if str(path).endswith("/stat"):
            raise OSError(error, os.strerror(error))
        return read_text(path, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", refuse)
        owners._own.cache_clear()
        nameless = owners.owner()
        assert storage.remove_unfinished() == temporary.remove_folders(elsewhere) == 0
    assert not owners.is_dead(nameless)
    owners._own.cache_clear()
    dead = nameless.replace(f"-{os.getpid()}-", f"-{process.pid}-")
    process.kill()
    process.wait()
    assert owners.is_dead(dead)


def test_a_number_that_no_process_can_have_is_that_of_a_dead_one():
    machine = owners.owner().partition("-")[0]
    assert owners.is_dead(f"{machine}-{'9' * 40}-1")


def test_in_a_folder_that_is_not_there_nothing_is_removed(tmp_path):
    assert temporary.remove_folders(tmp_path / "missing") == 0


def test_a_process_that_is_forked_while_the_remover_begins_makes_a_folder(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", None)
    begun, go_on = threading.Event(), threading.Event()
    choose = tempfile._get_default_tempdir

    def choose_when_told() -> str:
        begun.set()
        go_on.wait()
        return choose()

    with monkeypatch.context() as patch:
        remover = temporary.Remover(lambda: (begun.set(), go_on.wait(), 0)[-1])
        patch.setattr(tempfile, "_get_default_tempdir", choose_when_told)
        remover.soon()
        assert begun.wait(60)
        pid = os.fork()
        if not pid:
            try:
                signal.alarm(60)  # ends the process if it hangs
                with temporary.folder():
                    pass
                os._exit(0)
            finally:
                os._exit(1)
        go_on.set()
    assert os.waitpid(pid, 0)[1] == 0
