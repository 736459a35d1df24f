"""Storage on a web server: files are read like others, and whatever would write is refused at once."""

from __future__ import annotations

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from packmule.jobs import context
from packmule.jobs.files import file
from packmule.jobs.input_limits import InputLimits
from packmule.jobs.storage import FileTooLarge, MissingFile, Storage, StorageError, StorageUnavailable
from packmule.units import MIB

pytest.importorskip("aiohttp")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def site(tmp_path):
    """A folder, and the URL at which a server offers it."""
    folder = tmp_path / "site"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_files_are_read_by_any_name(site):
    folder, url = site
    storage = Storage(url)
    (folder / "a").mkdir()
    for name in ("a/plain.csv", "a/ä b?c#d%20.csv"):
        (folder / name).write_bytes(b"x;y\n1;2\n")
        assert storage.read_bytes(name, 100) == b"x;y\n1;2\n"
        assert storage.size(name) == 8
    with pytest.raises(FileTooLarge):
        storage.read_bytes("a/plain.csv", 7)
    with pytest.raises(MissingFile):
        storage.read_bytes("a/missing.csv")
    before = storage.version("a/plain.csv")
    (folder / "a/plain.csv").write_bytes(b"other bytes\n")
    assert before != storage.version("a/plain.csv")


def test_writing_is_refused_before_any_work(site):
    folder, url = site
    storage = Storage(url)
    (folder / "a.csv").write_bytes(b"x,y\n1,2\n")
    words = r"can't write b\.csv: .* can only be read: set PACKMULE_STORAGE"
    with pytest.raises(StorageError, match=words), storage.write("b.csv"):
        pytest.fail("work was done for nothing")
    for act in (storage.delete, storage.delete_folder):
        with pytest.raises(StorageError, match="can only be read"):
            act("a.csv")
    assert storage.remove_unfinished() == 0
    context.provide(storage, InputLimits(MIB, MIB, MIB))
    assert file("a.csv")["type"] == "text/csv"
    with pytest.raises(StorageError, match="can only be read"):
        file("a.csv", to="parquet")


def test_a_server_that_refuses_or_is_away_is_one_plain_line(site):
    _, url = site
    with pytest.raises(StorageUnavailable, match="can't be reached"):
        Storage("http://127.0.0.1:9").read_bytes("a.csv")
    assert not Storage(url).exists("a.csv")
